"""Tasks on a Ray cluster: one experiment at a time per node, lost nodes retried, nothing left behind by Ctrl-C."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stages.common import ray_cluster
from stages.common.base.errors import StageError
from stages.sweep import worker
from stages.sweep.worker import Experiment, TaskResult

BENCH = "bench"
"""The custom resource of a node: 1 lets one experiment run at a time, so that others do not disturb its timing."""

RETRIES = 3
CLEANUP_SECONDS = 60
START = "ray start --head --resources '{\"bench\": 1}'"
WITHOUT_RAY = (
    "Ray is not installed. Install it here and on every node: pip install '.[ray]'. "
    "On one machine you do not need Ray: `dvc exp run --queue -S ...`, then `dvc queue start -j 2` (docs/sweeps.md)."
)


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The `ray` module, connected to the cluster.

    Raises:
        StageError: Ray is not installed, no cluster answers, or none of its nodes can run experiments.
    """
    unreachable = f"No Ray cluster answers at {address or 'this machine'}. Start one: {START}."
    with ray_cluster.connected(address or "auto", missing=WITHOUT_RAY, unreachable=unreachable) as ray:
        if not ray.cluster_resources().get(BENCH):
            raise StageError(f"No node of the cluster has the resource {BENCH}, so none runs experiments: {START}.")
        ray.cloudpickle.register_pickle_by_value(worker)
        yield ray


def run(ray: Any, experiments: Sequence[Experiment], nodes: Sequence[str] | None) -> Iterator[TaskResult]:
    """Run the experiments on nodes with these ids (None: all), and yield outcomes; ending early cancels the rest."""
    where = {} if nodes is None else {"label_selector": {"ray.io/node-id": f"in({','.join(nodes)})"}}
    task = ray.remote(worker.run).options(num_cpus=1, resources={BENCH: 1}, max_retries=RETRIES, **where)
    waiting = {task.remote(experiment): experiment for experiment in experiments}
    try:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            experiment = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                problem = str(error).strip().splitlines()[0]
                yield TaskResult(experiment.name, [f"Its node was lost {RETRIES + 1} times: {problem}"], "")
    finally:
        # The last first: a waiting task must not start on the node that a cancelled one leaves.
        for task_reference in reversed(list(waiting)):
            ray.cancel(task_reference)
        if waiting:
            _wait_until_idle(ray)


def _wait_until_idle(ray: Any) -> None:
    """Give cancelled tasks time to remove their clones: a node's resource is taken until its task has ended."""
    for _ in range(CLEANUP_SECONDS):
        time.sleep(1)  # first, as available resources are reported with a delay
        if ray.available_resources().get(BENCH) == ray.cluster_resources().get(BENCH):
            return


def alike(ray: Any) -> tuple[str, list[str]]:
    """The most frequent kind of machine among the nodes that can run experiments, and the ids of its nodes."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(BENCH)]
    ask = ray.remote(worker.kind)
    asked = [ask.options(num_cpus=0, label_selector={"ray.io/node-id": node}).remote() for node in nodes]
    kinds: dict[str, list[str]] = defaultdict(list)
    for node, kind in zip(nodes, ray.get(asked), strict=True):
        kinds[kind].append(node)
    return max(sorted(kinds.items()), key=lambda item: len(item[1]))
