"""What bench writes: headlines, details and evidence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from stages.bench.stage import BenchResult, Measurements
from stages.common.base import paths
from stages.common.base.files import rounded, together
from stages.common.timing.summary import Interval, PairedTiming, calls_for, quantile_ms

_TAIL = {"p90": 0.9, "p95": 0.95, "p99": 0.99}
_CURVE = np.linspace(0.01, 0.99, 99).round(2)
_GROUPS = ("batches", "latency", "memory", "load", "spread", "call", "control", "noise", "operators")
_SAME = "both files are identical, so there is nothing to compare"


def write(result: BenchResult) -> None:
    measured = result.measurements
    timings = measured.by_batch() if measured else []
    launches = (row for timing in timings for row in launch_rows(timing))
    with together() as outputs:
        outputs.csv(
            paths.BENCH_LAUNCHES,
            ("launch", "start", "end", "round", "batch", "fp32_p50_ms", "int8_p50_ms", "counted"),
            launches,
        )
        outputs.csv(
            paths.BENCH_LATENCY, ("quantile", "fp32_ms", "int8_ms"), _curve(measured.serving) if measured else ()
        )
        speedups = ((timing.samples, *_ends(timing.interval).values()) for timing in timings)
        outputs.csv(paths.BENCH_SPEEDUP, ("batch", "speedup", "low95", "high95"), speedups)
        operators = (
            (name, *map(rounded, times))
            for name, *times in (measured.profile.rows() if measured and measured.profile else ())
        )
        outputs.csv(paths.OPERATORS, ("operator", "fp32_ms", "int8_ms", "fp32_share", "int8_share"), operators)
        outputs.json(paths.BENCH_DETAILS, details(result))
        outputs.json(paths.BENCH, headlines(result))


def headlines(result: BenchResult) -> dict[str, Any]:
    """The tree of metrics/bench.json. For identical files the speed-up is 1, and all other figures are null."""
    measured = result.measurements
    latency = (measured.serving.fp32.p50_ms, measured.serving.int8.p50_ms) if measured else (None, None)
    interval = measured.serving.interval if measured else Interval(1.0, 1.0, 1.0)
    return {
        "speedup": _ends(interval) | {"verdict": interval.verdict},
        "latency": dict(zip(("fp32_p50_ms", "int8_p50_ms"), map(rounded, latency), strict=True)),
        "memory": _footprints(measured, {"mb": "resident_mb"}),
        "load": _footprints(measured, {"ms": "load_ms"}),
    }


def details(result: BenchResult) -> dict[str, Any]:
    """The tree of metrics/details/bench.json; `null_reasons` covers the headlines too."""
    measured, subject = result.measurements, result.inputs
    serving = measured.serving if measured else None
    tree = {
        **dict.fromkeys(_GROUPS),
        **(_measured(measured) if measured else {"batches": [{"batch": subject.batch, "not_measured": _SAME}]}),
        "without_int8": subject.without_int8,
        "measured": {
            "machine_id": subject.machine.machine_id,
            "machine": subject.machine.name,
            "threads": result.threads,
            "batch": subject.batch,
            "launches": serving.launches if serving else 0,
            "stopped_by": serving and serving.stopped_by,
            "rounds": serving and ("all" if serving.all_rounds else "quiet"),
            "sha256": dict(zip(("fp32", "int8"), subject.sha256, strict=True)),
        },
        "notes": result.warnings(),
    }
    nulls = [*_nulls(headlines(result)), *_nulls(tree)]
    return tree | {"null_reasons": {key: _null_reason(key, measured) for key in nulls}}


def launch_rows(timing: PairedTiming) -> Iterator[tuple[Any, ...]]:
    """Per launch and round: the median call of both models in milliseconds, and whether the round counts.

    Start and end are those of all rounds of the launch, in seconds since 1970 (UTC).
    """
    launches = zip(timing.spans, timing.medians, timing.counted, strict=True)
    for launch, (span, medians, counted) in enumerate(launches):
        times = [f"{seconds:.3f}" for seconds in span]
        for number, ((fp32, int8), counts) in enumerate(zip(medians / 1e6, counted, strict=True)):
            yield launch, *times, number, timing.samples, f"{fp32:.9g}", f"{int8:.9g}", int(counts)


def throughput(timing: PairedTiming) -> dict[str, float | None]:
    """Samples per second of one session that is always busy."""
    return {
        f"{model}_per_s": rounded(timing.samples / times.p50_ms * 1e3)
        for model, times in (("fp32", timing.fp32), ("int8", timing.int8))
    }


def _measured(measured: Measurements) -> dict[str, Any]:
    """The details that exist only if something was measured."""
    serving, footprints = measured.serving, measured.footprints
    left_out = [{"batch": size, "not_measured": reason} for size, reason in measured.left_out.items()]
    peaks = _footprints(measured, {"peak_load_mb": "peak_load_mb", "peak_run_mb": "peak_run_mb"})
    return {
        "batches": sorted([*map(_batch, measured.by_batch()), *left_out], key=lambda row: row["batch"]),
        "latency": {
            f"{model}_{label}_ms": rounded(quantile_ms(times.all_ns, share))
            for label, share in _TAIL.items()
            for model, times in (("fp32", serving.fp32), ("int8", serving.int8))
        },
        "memory": {**peaks, "method": footprints[0].method if footprints else None},
        "load": _footprints(measured, {"first_ms": "first_ms"}),
        "spread": _spread(measured),
        "call": {
            "floor_ms": rounded(measured.floor_ms),
            "overhead_bound": measured.overhead_bound,
            "finding": measured.overhead(),
        },
        "control": _ends(measured.control) if measured.control else dict.fromkeys(("ratio", "low95", "high95")),
        "noise": {key: rounded(value) for key, value in asdict(measured.noise).items()}
        | {"finding": measured.noise.finding()},
        "operators": {"finding": measured.profile and measured.profile.finding()},
    }


def _spread(measured: Measurements) -> dict[str, dict[str, list[float | None]]]:
    """Minimum and maximum over the launches of this run, under the keys of the headlines."""
    models, serving = ("fp32", "int8"), measured.serving
    pairs = list(zip(models, measured.footprints or (), strict=bool(measured.footprints)))
    groups: dict[str, Mapping[str, Sequence[float]]] = {
        "latency": {"fp32_p50_ms": serving.fp32.spread_ms, "int8_p50_ms": serving.int8.spread_ms},
        "memory": {f"{model}_mb": footprint.resident_spread for model, footprint in pairs},
        "load": {f"{model}_ms": footprint.load_spread for model, footprint in pairs},
    }
    return {group: {key: list(map(rounded, ends)) for key, ends in known.items()} for group, known in groups.items()}


def _batch(timing: PairedTiming) -> dict[str, Any]:
    return {
        "batch": timing.samples,
        "fp32_p50_ms": rounded(timing.fp32.p50_ms),
        "int8_p50_ms": rounded(timing.int8.p50_ms),
        **throughput(timing),
        "speedup": rounded(timing.interval.ratio),
        "low95": rounded(timing.interval.low),
        "high95": rounded(timing.interval.high),
        "verdict": timing.interval.verdict,
    }


def _ends(interval: Interval) -> dict[str, float | None]:
    return {"ratio": rounded(interval.ratio), "low95": rounded(interval.low), "high95": rounded(interval.high)}


def _footprints(measured: Measurements | None, attributes: Mapping[str, str]) -> dict[str, float | None]:
    """Attributes of both models' footprints; `attributes` maps keys, without the name of the model, to attributes."""
    footprints = (measured and measured.footprints) or (None, None)
    return {
        f"{model}_{key}": rounded(getattr(footprint, attribute, None))
        for model, footprint in zip(("fp32", "int8"), footprints, strict=True)
        for key, attribute in attributes.items()
    }


def _nulls(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of the null values in `tree`."""
    for key, value in tree.items():
        if value is None:
            yield prefix + key
        elif isinstance(value, dict):
            yield from _nulls(value, f"{prefix}{key}.")


def _null_reason(key: str, measured: Measurements | None) -> str:
    if measured is None:
        return _SAME
    group, name = key.split(".")
    if group == "latency":
        model, label, _ = name.split("_")
        timed = len(getattr(measured.serving, model).all_ns)
        return f"{label} needs {calls_for(_TAIL[label])} calls, but only {timed} were timed"
    if name == "cpu_share":
        return "only known for a single thread, as several wait for each other"
    if {"load": "memory"}.get(group, group) in measured.rest.left_out:
        return "bench.max_seconds left no time for it"
    if group in ("memory", "load") and measured.footprints is None:
        return "bench.memory is false"
    return "this system does not report it"


def _curve(timing: PairedTiming) -> Iterator[tuple[float | None, ...]]:
    for share in map(float, _CURVE):
        row = [quantile_ms(times.all_ns, share) for times in (timing.fp32, timing.int8)]
        if None not in row:
            yield (share, *map(rounded, row))
