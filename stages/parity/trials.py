"""Trying what might be advised: quantize runs with other params in a copy of the workspace, and its model is judged."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.judging.serve import Model, calls
from stages.common.model.sessions import open_session
from stages.parity import figures
from stages.parity.judge import ParityResult, judge
from stages.parity.measure import measure
from stages.parity.setting import Setting, check_pair, model_sha256

REPOSITORY = Path(__file__).resolve().parents[2]

LARGEST_MODEL = 600 << 20
"""Size of fp32 in bytes beyond which nothing is tried: each trial quantizes the model anew."""

ESTIMATE_SECONDS = 1.0
ESTIMATE_ROUNDS = 5
ROUND_SECONDS = 0.01

Overrides = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One variant that quantize made, judged.

    Attributes:
        overrides: of params.yaml, by dotted key.
        result: the verdict on all judged samples; None where there is no such variant.
        size_ratio: its size over that of fp32.
        speedup: of one call at the serving batch over fp32: an estimate from about a second.
        problem: why there is no variant, else empty.
    """

    overrides: Overrides
    result: ParityResult | None = None
    size_ratio: float = 1.0
    speedup: float = 1.0
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is quantized, and every rule holds."""
        return self.result is not None and self.result.passed

    @property
    def largest(self) -> float | None:
        """The largest difference that it leaves."""
        return None if self.result is None else figures.headlines(self.result)["diff"]["max_abs"]


class Workshop:
    """A copy of what quantize reads, in a temporary folder."""

    def __init__(self, folder: Path, setting: Setting, params: Params, *, movement: bool) -> None:
        self._folder = folder
        self._movement = movement or params.parity.max_batch_effect is not None
        self._setting = setting
        self._params = params
        (folder / paths.ARTIFACTS).mkdir()
        (folder / paths.EVAL).symlink_to(paths.EVAL.resolve())
        for path in (paths.FP32_MODEL, paths.external_data(paths.FP32_MODEL)):
            if path.exists():  # copied: onnx refuses external data behind links
                shutil.copyfile(path, folder / path)

    def run(self, overrides: Overrides, seconds: float) -> Trial:
        """Quantize with these params, and judge the result.

        Args:
            overrides: of params.yaml, by dotted key.
            seconds: to give up quantizing after.
        """
        try:
            params = overridden(self._params, overrides)
        except (ValidationError, StageError) as error:
            return Trial(overrides, problem=str(error))
        (self._folder / paths.PARAMS).write_text(json.dumps(params.model_dump(mode="json")), encoding="utf-8")
        try:
            made = subprocess.run(
                [sys.executable, "-m", "stages.quantize"],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
                timeout=max(1.0, seconds),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Trial(overrides, problem="longer than parity.advice_seconds")
        if made.returncode:
            return Trial(overrides, problem=made.stderr.strip().rpartition("\n")[2])
        int8 = self._folder / paths.INT8_MODEL
        status = json.loads((self._folder / paths.QUANTIZE).read_text(encoding="utf-8"))["status"]
        if status != "quantized":
            return Trial(overrides, problem="it quantizes nothing")
        if model_sha256(int8) == self._setting.sha256[1]:
            return Trial(overrides, problem="it makes the same model")
        return self._judged(overrides, int8, params)

    def _judged(self, overrides: Overrides, int8: Path, params: Params) -> Trial:
        setting = self._setting
        try:
            model = Model(open_session(int8, setting.serving.threads), "the variant")
            check_pair(setting.fp32, model)
            variant = dataclasses.replace(setting, int8=model)
            measurement = measure(variant, params.parity, movement=self._movement)
            speedup = estimated_speedup(variant)
        except StageError as error:
            return Trial(overrides, problem=str(error))
        result = judge(figures.measured(measurement, params.parity.threshold), params.parity, measurement.comparison)
        sizes = [model_size(path) for path in (paths.FP32_MODEL, int8)]
        return Trial(overrides, result, sizes[1] / sizes[0], speedup)


@contextmanager
def workshop(setting: Setting, params: Params, *, movement: bool) -> Iterator[Workshop]:
    """A workshop in a folder that is removed afterwards.

    Args:
        setting: the models as they were judged.
        params: of the pipeline.
        movement: whether to measure how a variant's answers move with the batch.
    """
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        yield Workshop(Path(folder), setting, params, movement=movement)


def overridden(params: Params, overrides: Overrides) -> Params:
    """The params with these dotted keys set.

    Raises:
        ValidationError, StageError: a value is not allowed.
    """
    tree = params.model_dump()
    for key, value in overrides.items():
        *groups, leaf = key.split(".")
        branch = tree
        for group in groups:
            branch = branch[group]
        branch[leaf] = value
    return Params.model_validate(tree)


def estimated_speedup(setting: Setting) -> float:
    """fp32 time over INT8 time for one call at the serving batch: the best round of each, over about a second."""
    call = next(calls(setting.data, setting.indices[: setting.batch], setting.batch))
    rounds: tuple[list[float], list[float]] = ([], [])
    deadline = time.perf_counter() + ESTIMATE_SECONDS
    while len(rounds[0]) < ESTIMATE_ROUNDS or time.perf_counter() < deadline:
        for model, spent in zip((setting.fp32, setting.int8), rounds, strict=True):
            # The first call of a round pays for what the other model left in the caches.
            model.values(call)
            spent.append(_seconds(partial(model.values, call)))
    return min(rounds[0]) / min(rounds[1])  # disturbances only make a round longer


def _seconds(call: Callable[[], object]) -> float:
    """Of one call: the median of those that fit into a round."""
    durations: list[float] = []
    end = time.perf_counter() + ROUND_SECONDS
    while not durations or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return median(durations)


def model_size(model: Path) -> int:
    """Bytes of a model file and its external data file."""
    return sum(path.stat().st_size for path in paths.files_of(model))
