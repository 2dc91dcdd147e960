"""What bench prints: three tables and a conclusion."""

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from stages.bench.figures import throughput
from stages.bench.stage import BenchResult, Measurements

_OPERATORS_SHOWN = 5
_ENDED = {
    "target": "until the interval was as narrow as bench.target_halfwidth",
    "budget": "until bench.max_seconds was spent",
}


def render(result: BenchResult) -> str:
    measured = result.measurements
    if measured is None:
        return "Both files are identical: there is nothing to compare, so nothing was timed."
    blocks = [_speeds(measured), _footprints(measured), _operators(measured), _conclusion(result, measured)]
    return "\n\n".join(block for block in blocks if block)


def _speeds(measured: Measurements) -> str:
    rows = [
        (timing.samples, timing.fp32.p50_ms, timing.int8.p50_ms, *throughput(timing).values(), str(timing.interval))
        for timing in measured.by_batch()
    ]
    table = _table(("batch", "fp32 ms", "INT8 ms", "fp32 /s", "INT8 /s", "speed-up (95 % interval)"), rows)
    return "\n".join(
        [table, *(f"Batch {size} was not measured: {reason}." for size, reason in measured.left_out.items())]
    )


def _footprints(measured: Measurements) -> str:
    if measured.footprints is None:
        return ""
    fp32, int8 = measured.footprints
    rows = [
        ("memory, MB", fp32.resident_mb, int8.resident_mb),
        ("load, ms", fp32.load_ms, int8.load_ms),
        ("first run, ms", fp32.first_ms, int8.first_ms),
    ]
    return _table(("", "fp32", "INT8"), rows)


def _operators(measured: Measurements) -> str:
    if measured.profile is None:
        return ""
    rows = [
        (name, fp32_ms, int8_ms, f"{fp32_share:.0%}", f"{int8_share:.0%}")
        for name, fp32_ms, int8_ms, fp32_share, int8_share in measured.profile.rows()[:_OPERATORS_SHOWN]
    ]
    return _table(("operator", "fp32 ms", "INT8 ms", "of fp32", "of INT8"), rows)


def _conclusion(result: BenchResult, measured: Measurements) -> str:
    """How it was measured, what disturbed it, and the verdict with its explanation."""
    serving, noise = measured.serving, measured.noise.finding()
    itself = f"; the fp32 model against itself here: {measured.control}" if measured.control else ""
    lines = [
        f"{serving.launches} launches, {_ENDED[serving.stopped_by]}{itself}.",
        f"While the models were timed, {noise}." if noise else "",
        *(f"Warning: {warning}" for warning in result.warnings()),
    ]
    threads = f"{result.threads} thread{'s' * (result.threads > 1)}"
    place = f"at batch {serving.samples} with {threads} on {result.inputs.machine.name}"
    ratio = f"{serving.interval.as_in_metrics().ratio:.3g} times the speed of fp32"
    match serving.interval.verdict:
        case "faster":
            lines.append(f"INT8 is faster: {ratio} {place}.")
        case "equivalent":
            lines += [f"INT8 is as fast as fp32 within 3 %: {ratio} {place}.", measured.overhead()]
        case "slower":
            finding = measured.profile.finding() if measured.profile else ""
            lines += [f"INT8 is slower: {ratio} {place}.", finding, measured.overhead()]
        case "inconclusive":
            lines += [
                f"The speed-up {place} is too uncertain to distinguish from 1: run bench again on a quieter machine, "
                "or raise bench.max_seconds.",
                measured.overhead(),
            ]
    return "\n".join(filter(None, lines))


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text: str = tabulate(rows, headers, tablefmt="simple", floatfmt=".3g")
    return text
