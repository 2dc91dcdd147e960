"""Samples judged in shards by Ray actors, against the same samples judged in one process."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from stages.common import isa
from stages.common.base import params
from stages.common.base.errors import StageError
from stages.common.compare.comparison import Comparison
from stages.common.compare.task import task_figures
from stages.common.decisions import Decider
from stages.parity import measure, shards
from stages.parity.setting import Setting, open_setting
from tests.common.test_compare import leaves
from tests.parity.conftest import Project, graph
from tests.pipeline.conftest import ROOT

ACTORS = 4
SAMPLES = 403
BATCH = 8

CLUSTER = f"""
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": {ACTORS}}})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

# INT8 answers depend on the batch (ReduceMax over axis 0), so shards must keep the batches of a single process.
FP32 = """(float[N, 6] x) => (float[N, 6] p, float[N, 1] score, int64[N] label) {
    zero = Constant<value = float {0.0}>() limit = Constant<value = float {2.9}>() axes = Constant<value_ints = [1]>()
    p = Softmax<axis = 1>(x) s = ReduceSum(x, axes) score = Sqrt(s) label = ArgMax<axis = 1, keepdims = 0>(x)
}"""
INT8 = """(float[N, 6] x) => (float[N, 6] p, float[N, 1] score, int64[N] label) {
    part = Constant<value = float {0.05}>() axes = Constant<value_ints = [1]>()
    most = ReduceMax<axes = [0], keepdims = 1>(x) shift = Mul(most, part) y = Sub(x, shift)
    p = Softmax<axis = 1>(y) s = ReduceSum(y, axes) score = Sqrt(s) label = ArgMax<axis = 1, keepdims = 0>(y)
}"""

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)


@pytest.fixture
def setting(project: Project) -> Setting:
    random = np.random.default_rng(0)
    x = random.normal(0.3, 1, (SAMPLES, 6)).astype(np.float32)
    labels = np.where(random.random(SAMPLES) < 0.8, x.argmax(axis=1), 0)
    project.write(graph(FP32), graph(INT8), {"x": x}, labels, tree={"serving": {"batch_size": BATCH}})
    return open_setting(params.load().serving)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray node of four CPUs on loopback, whatever the machine has."""
    nodes = tempfile.mkdtemp(prefix="n", dir="/tmp")  # a short path: it holds sockets
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": nodes}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        monkeypatch.setenv("RAY_ADDRESS", process.stdout.readline().strip())
        yield
        process.stdin.close()
        process.wait(60)
    shutil.rmtree(nodes)


def actors() -> list[int]:
    """The ids of Ray processes that are, or were, one of our actors."""
    processes = psutil.process_iter(["cmdline"])
    return [process.pid for process in processes if (process.info["cmdline"] or [""])[0].startswith("ray::Shard")]


def figures(comparison: Comparison) -> dict[str, object]:
    """Every figure, not rounded."""
    outputs = {name: output.figures()[0] for name, output in comparison.outputs.items()}
    task = task_figures(comparison.accuracy, comparison.auc, comparison.regression)
    return dict(leaves({"outputs": outputs, "decisions": comparison.decisions.figures(), "task": task}))


@with_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_four_actors_find_what_one_process_finds_and_an_interrupt_leaves_none(
    setting: Setting, project: Project
) -> None:
    assert len(shards.parts(setting.indices, BATCH, ACTORS)) == ACTORS
    local, sharded = (
        measure.measure(setting, params.load().parity, engine=engine) for engine in (measure.compared, shards.compared)
    )
    expected, merged = figures(local.comparison), figures(sharded.comparison)
    assert expected.keys() == merged.keys()
    for name, value in expected.items():
        assert merged[name] == (pytest.approx(value, rel=1e-12, abs=1e-15) if isinstance(value, float) else value), name
    assert local.comparison.decisions.flips > 0
    assert local.comparison.outputs["score"].nonfinite_samples > 0
    assert local.median is not None
    assert sharded.median is not None
    assert figures(local.median) == figures(sharded.median)

    wait_for(lambda: not actors())
    more = np.zeros((400_000, 6), np.float32)
    project.write(graph(FP32), graph(INT8), {"x": more}, tree={"parity": {"engine": "ray"}})
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.parity"], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    )
    wait_for(lambda: len(actors()) == ACTORS)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    wait_for(lambda: not actors())


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():  # pytest's own timeout ends it
        time.sleep(0.1)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 403])
@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_parts_hold_whole_batches_in_order(count: int, most: int) -> None:
    parts = shards.parts(np.arange(count), BATCH, most)
    assert len(parts) == min(most, -(-count // BATCH))
    assert np.concatenate(parts).tolist() == list(range(count))
    assert all(len(part) % BATCH == 0 for part in parts[:-1])


def test_without_ray_it_says_how_to_install_it(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StageError, match=r"pip install '\.\[ray\]', or set parity\.engine to local"):
        measure.measure(setting, params.load().parity, engine=shards.compared)


@with_ray
def test_a_cluster_that_is_not_there_is_named_at_once(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(StageError, match=r"No Ray cluster answers at 127\.0\.0\.1:1, the address in RAY_ADDRESS"):
        measure.measure(setting, params.load().parity, engine=shards.compared)


@pytest.mark.parametrize(
    ("folder", "digest", "instructions", "message"),
    [
        ("nowhere", None, None, "has no folder .*nowhere. Share it with every node"),
        (".", ("0", "0"), None, "has other models in .*. Share it with every node"),
        (".", None, "neon", "this machine on neon, so INT8 answers may differ"),
    ],
)
def test_a_node_that_would_judge_something_else_refuses(
    setting: Setting, folder: str, digest: tuple[str, str] | None, instructions: str | None, message: str
) -> None:
    shard = shards.Shard(Path.cwd() / folder, setting.serving, digest or setting.sha256, instructions or isa.here())
    with pytest.raises(StageError, match=message):
        shard.compare(setting.indices, Decider(), measure.Kept(setting.indices))
