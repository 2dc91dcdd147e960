"""Any two models with the same inputs, timed as bench times fp32 and INT8. Nothing is written."""

import platform
import re
from pathlib import Path

import onnxruntime as ort
from tabulate import tabulate

from stages.common import isa
from stages.common.base import files, paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.data.feeding import generated_feed
from stages.common.model.sessions import open_session, ort_message
from stages.common.timing.feed import StoredFeed, store
from stages.common.timing.launches import LaunchSettings, ModelPair, draw_feed, time_pair
from stages.common.timing.lock import alone
from stages.common.timing.summary import PairedTiming


def compare_pair(models: ModelPair, params: Params) -> str:
    """Time two models, the first in place of fp32, and compare them in a table and a sentence.

    Raises:
        StageError: a file is missing or does not load, the inputs differ, or there are no inputs to run them on.
    """
    sessions = [_open(path) for path in models]
    _check_same_inputs(models, *sessions)
    with files.scratch("bench") as folder, alone() as lock:
        feed, source = _feed(models.fp32, sessions[0], params, folder)
        del sessions
        settings = LaunchSettings(params.serving.threads, params.bench.seed, lock)
        (timing,) = time_pair(
            models, [feed], settings, budget=params.bench.max_seconds, target=params.bench.target_halfwidth
        )
    return _render(models, timing, params.serving.threads, source)


def _open(path: Path) -> ort.InferenceSession:
    if not path.is_file():
        raise StageError(f"{path} does not exist. Give the paths of two ONNX models.")
    return open_session(path)


def _check_same_inputs(models: ModelPair, *sessions: ort.InferenceSession) -> None:
    first, second = ({arg.name: arg.type for arg in session.get_inputs()} for session in sessions)
    if first != second:
        name = min(set(first.items()) ^ set(second.items()))[0]
        has, lacks = (
            f"{path} has {f'{inputs[name]} there' if name in inputs else 'no such input'}"
            for path, inputs in zip(models, (first, second), strict=True)
        )
        raise StageError(
            f"The models differ in the input '{name}': {has}, {lacks}. Give two that take the same inputs."
        )


def _feed(model: Path, session: ort.InferenceSession, params: Params, folder: Path) -> tuple[StoredFeed, str]:
    """Samples of the evaluation data if it fits the model, else generated inputs; and a sentence that says which."""
    seed = params.bench.seed
    try:
        data = EvalData()
        feeding.check_fit(session, data.inputs, data.layout)
        batch = feeding.feed_batch(session, data.layout, params.serving.batch_size)
        return draw_feed(data, batch, seed, folder), f"Timed on the evaluation data in {paths.EVAL}."
    except StageError as error:
        generated = generated_feed(session, params.serving.batch_size, seed)
        try:
            session.run(None, generated)
        except Exception as failure:  # see sessions.run
            raise StageError(
                f"{model} does not run on inputs generated from its declared shapes: {ort_message(failure)}. "
                "Export it first, with evaluation data that fits it."
            ) from failure
        samples = max((len(array) for array in generated.values() if array.ndim), default=1)
        source = f"Timed on inputs generated from the declared shapes, because no evaluation data fits: {error}"
        return store(folder / "generated.npz", generated, samples), source


def _render(models: ModelPair, timing: PairedTiming, threads: int, source: str) -> str:
    first, second = models
    rows = [(str(first), timing.fp32.p50_ms), (str(second), timing.int8.p50_ms)]
    place = f"{_cpu()}, {isa.here()}, {threads} thread{'s' * (threads > 1)}, batch {timing.samples}"
    interval, verdict = timing.interval, timing.interval.verdict
    unclear = " Time them again on a quieter machine, or raise bench.max_seconds." if verdict == "inconclusive" else ""
    lines = [
        source,
        f"{timing.launches} launches on {place}.",
        f"Speed-up of {second} over {first}: {interval.ratio:.3f} "
        f"(95 % interval {interval.low:.3f} to {interval.high:.3f}), {verdict}.{unclear}",
    ]
    table = tabulate(rows, ("model", "median call, ms"), tablefmt="simple", floatfmt=".3g")
    return "\n".join([table, "", *lines])


def _cpu() -> str:
    """The model name of this CPU in /proc/cpuinfo; elsewhere its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return name[1] if name else platform.machine()
