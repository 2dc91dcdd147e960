"""Try a variant: run quantize with other params in a copy of the workspace, and judge its model."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.common.base import files, paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.judging.serve import Model
from stages.common.model.sessions import open_session
from stages.common.timing.launches import LaunchSettings, ModelPair, draw_feed, time_pair
from stages.common.timing.lock import alone
from stages.common.timing.summary import Interval
from stages.parity import figures
from stages.parity.judge import ParityResult, judge
from stages.parity.measure import measure
from stages.parity.setting import Setting, check_pair

REPOSITORY = Path(__file__).resolve().parents[2]

LARGEST_MODEL = 600 << 20
"""Size of the fp32 model in bytes above which nothing is tried, as each trial quantizes the model again."""

OUT_OF_TIME = "no result within parity.advice_seconds"
"""The problem of a variant that was not judged in time."""

TIMING_SECONDS = 4.0
LAUNCH_SECONDS = 0.1
TARGET = 0.03
"""How to time a variant that passes: about eight launches of a small model, each of which is one observation."""

Overrides = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TriedVariant:
    """A variant that was tried.

    Attributes:
        overrides: overrides of params.yaml, by dotted key.
        result: the verdict on all judged samples; None if the model could not be built or judged.
        size_ratio: size of its model over that of fp32.
        speedup: over fp32, for one call at the serving batch size; None if it failed or is not smaller than fp32.
        problem: why the model could not be built or judged; empty if it was.
        about_as_fast: for method auto, the size ratios of all models of the search that another one may choose.
    """

    overrides: Overrides
    result: ParityResult | None = None
    size_ratio: float = 1.0
    speedup: Interval | None = None
    problem: str = ""
    about_as_fast: Sequence[float] = ()

    @property
    def passed(self) -> bool:
        """Whether it was judged, and no rule failed."""
        return self.result is not None and self.result.passed

    @property
    def largest(self) -> float | None:
        """Its largest difference from fp32; None if it was not judged."""
        return None if self.result is None else figures.headlines(self.result)["diff"]["max_abs"]


class Workspace:
    """A folder with a copy of what quantize reads."""

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

    def run(self, overrides: Overrides, seconds: float) -> TriedVariant:
        """Quantize with these params, and judge the result.

        Args:
            overrides: overrides of params.yaml, by dotted key.
            seconds: time limit for quantize.
        """
        deadline = time.monotonic() + seconds
        try:
            params = overridden(self._params, overrides)
        except (ValidationError, StageError) as error:
            return TriedVariant(overrides, problem=str(error))
        (self._folder / paths.PARAMS).write_text(json.dumps(params.model_dump(mode="json")), encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "stages.quantize"],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
                timeout=max(1.0, seconds),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return TriedVariant(overrides, problem=OUT_OF_TIME)
        if done.returncode:
            return TriedVariant(overrides, problem=done.stderr.strip().rpartition("\n")[2])
        int8 = self._folder / paths.INT8_MODEL
        status = json.loads((self._folder / paths.QUANTIZE).read_text(encoding="utf-8"))["status"]
        if status != "quantized":
            return TriedVariant(overrides, problem="quantizes nothing")
        if files.sha256(int8) == self._setting.sha256[1]:
            return TriedVariant(overrides, problem="gives the same model")
        return self._judged(overrides, int8, params, deadline)

    def _judged(self, overrides: Overrides, int8: Path, params: Params, deadline: float) -> TriedVariant:
        """Judge the model of a variant, and time it if it passes and is smaller."""
        setting = self._setting
        try:
            model = Model(open_session(int8, setting.serving.threads), "the variant", setting.fp32.logarithms)
            check_pair(setting.fp32, model)
            variant = dataclasses.replace(setting, int8=model)
            verdict = judge(measure(variant, params.parity, movement=self._movement), params.parity)
            ratio = model_size(int8) / model_size(paths.FP32_MODEL)
            speedup = timed(variant, int8, deadline - time.monotonic()) if verdict.passed and ratio < 1 else None
        except StageError as error:
            return TriedVariant(overrides, problem=str(error))
        fp32_mb = model_size(paths.FP32_MODEL) / 1e6
        raced = [mb / fp32_mb for mb in about_as_fast(self._folder / paths.FRONTIER)]
        return TriedVariant(overrides, verdict, ratio, speedup, about_as_fast=raced)


@contextmanager
def open_workspace(setting: Setting, params: Params, *, movement: bool) -> Iterator[Workspace]:
    """A workspace in a temporary folder, which is removed at the end.

    Args:
        setting: the models as they were judged.
        params: all params.
        movement: whether to measure how a variant's answers move with the batch.
    """
    with files.scratch("parity") as folder:
        yield Workspace(folder, setting, params, movement=movement)


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


def about_as_fast(frontier: Path) -> list[float]:
    """The sizes in MB of the models in `frontier.csv` whose speed-up cannot be told from that of the chosen one.

    Empty if the file has no chosen model: other methods leave it empty.
    """
    with frontier.open(newline="", encoding="utf-8") as file:
        raced = [row for row in csv.DictReader(file) if row["speedup"]]
    slowest = [float(row["speedup_low95"]) for row in raced if row["chosen"] == "true"]
    return [float(row["mb"]) for row in raced if slowest and float(row["speedup_high95"]) >= slowest[0]]


def timed(setting: Setting, int8: Path, seconds: float) -> Interval:
    """fp32 time over INT8 time of one call at the serving batch size, from fewer and shorter launches than bench's.

    Args:
        setting: how the models are served.
        int8: path of the variant.
        seconds: time limit, see `time_pair`.
    """
    with files.scratch("parity") as folder, alone() as lock:
        feed = draw_feed(setting.data, setting.batch, 0, folder)
        (timing,) = time_pair(
            ModelPair(paths.FP32_MODEL, int8),
            [feed],
            LaunchSettings(setting.serving.threads, 0, lock),
            budget=min(TIMING_SECONDS, seconds),
            target=TARGET,
            seconds=LAUNCH_SECONDS,
        )
    return timing.interval


def model_size(model: Path) -> int:
    """Bytes of a model file and its external data file."""
    return sum(path.stat().st_size for path in paths.files_of(model))
