"""The judged samples in shards, each compared by its own Ray actor; their statistics are merged in order."""

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stages.common.base.errors import StageError
from stages.common.base.params import Serving
from stages.common.compare.comparison import Choose, Comparison
from stages.common.decisions import Decider, leading
from stages.common.judging.serve import calls
from stages.common.ray_cluster import connected
from stages.parity.measure import Kept
from stages.parity.measure import compared as compared_here
from stages.parity.setting import Setting, open_setting

WITHOUT_RAY = "parity.engine is ray, but Ray is not installed: pip install '.[ray]', or set parity.engine to local."


def compared(setting: Setting, kept: Kept, decider: Choose) -> Comparison:
    """Serve the judged samples to both models and compare the answers, on as many actors as have free CPUs.

    Ray connects to the cluster of RAY_ADDRESS or `ray start`, else it starts one on this machine. The batches are those
    of a single process, so the figures are the same.

    Raises:
        StageError: Ray is not installed, no CPU is free, or a node has other files or another instruction set.
    """
    stream = (setting.fp32.answer(call) for call in calls(setting.data, setting.indices, setting.batch))
    outputs, _ = leading(stream)
    samples = setting.indices[: len(next(iter(outputs.values()), ()))]
    decides = decider(outputs, setting.data.labels(samples))
    kept.draw(outputs)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS") or None
    unreachable = f"No Ray cluster answers at {address}, the address in RAY_ADDRESS. Start one, or unset the variable."
    with connected(address, missing=WITHOUT_RAY, unreachable=unreachable, include_dashboard=False) as ray:
        shares = parts(setting.indices, setting.batch, _free(ray, setting.serving.threads))
        actor = ray.remote(Shard).options(num_cpus=setting.serving.threads)
        actors = [actor.remote(Path.cwd(), setting.serving, setting.sha256, setting.isa) for _ in shares]
        waiting = [
            (one, one.compare.remote(share, decides, Kept(setting.indices, kept.drawn)))
            for one, share in zip(actors, shares, strict=True)
        ]
        del actors  # an actor ends once it has answered, which frees its CPUs for one that waits
        comparison = Comparison(decides)
        for part, kept_part in _results(ray, waiting, len(setting.indices)):
            comparison.merge(part)
            kept.indices += kept_part.indices
            kept.outputs += kept_part.outputs
    return comparison


@dataclass(frozen=True)
class Shard:
    """An actor: it loads both models in its own process, and refuses any but those of the driver."""

    folder: Path
    serving: Serving
    sha256: tuple[str, str]
    isa: str

    def compare(self, indices: np.ndarray, decider: Decider, kept: Kept) -> tuple[Comparison, Kept]:
        """Compare both models over some of the judged samples.

        Raises:
            StageError: this node has other files or another instruction set, or a model does not run.
        """
        node, folder = platform.node(), self.folder
        if not folder.is_dir():
            raise StageError(f"Node {node} has no folder {folder}. Share it with every node of the Ray cluster.")
        os.chdir(folder)
        setting = open_setting(self.serving)
        if setting.sha256 != self.sha256:
            raise StageError(f"Node {node} has other models in {folder}. Share it with every node of the cluster.")
        if setting.isa != self.isa:
            raise StageError(
                f"Node {node} computes on {setting.isa}, this machine on {self.isa}, so INT8 answers may differ. "
                "Use nodes of the same kind, or set parity.engine to local."
            )
        return compared_here(replace(setting, indices=indices), kept, lambda _outputs, _labels: decider), kept


def parts(indices: np.ndarray, batch: int, most: int) -> list[np.ndarray]:
    """The judged samples in up to `most` parts of whole batches; only the last batch may be incomplete."""
    batches = -(-len(indices) // batch)
    cuts = np.linspace(0, batches, min(most, batches) + 1).astype(np.int64)[1:-1] * batch
    return np.split(indices, cuts)


def _free(ray: Any, threads: int) -> int:
    """How many actors with `threads` CPUs the cluster has room for; Ray reports released CPUs after a moment."""
    for _ in range(20):
        if free := int(ray.available_resources().get("CPU", 0)) // threads:
            return free
        time.sleep(0.5)
    raise StageError(
        f"The Ray cluster has fewer free CPUs than the {threads} of serving.threads. "
        "Wait until other jobs have ended, or set parity.engine to local."
    )


def _results(ray: Any, waiting: list[Any], samples: int) -> Iterator[tuple[Comparison, Kept]]:
    """The results of the actors, in the order of the samples."""
    with tqdm(total=samples, unit="sample", desc="parity", disable=None, leave=False) as progress:
        while waiting:
            actor, reference = waiting.pop(0)
            try:
                result: tuple[Comparison, Kept] = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                lines = str(error).strip().splitlines()
                raise StageError(
                    f"A Ray actor was lost: {lines[0]} Try again, or set parity.engine to local."
                ) from error
            del actor
            progress.update(result[0].samples)
            yield result
