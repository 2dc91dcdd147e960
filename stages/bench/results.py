"""What bench found, as metrics, as data for plots, and on screen."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from tabulate import tabulate

from stages.bench.comparison import Comparison
from stages.bench.decision import Decision
from stages.bench.interval import Interval
from stages.bench.measure import Measured
from stages.bench.quantiles import calls_for, quantile_ms
from stages.common.base import paths
from stages.common.base.files import rounded, write_csv, write_json

_TAIL = {"p90": 0.9, "p95": 0.95, "p99": 0.99}
_CURVE = np.linspace(0.01, 0.99, 99).round(2)
_OPERATORS_SHOWN = 5
_ENDED = {
    "target": "until the interval was as narrow as bench.target_halfwidth",
    "budget": "until bench.max_seconds were spent",
}


def write(measured: Measured, machine_id: str, threads: int, decision: Decision) -> None:
    """Write the data of the plots, then the metrics."""
    write_csv(paths.BENCH_LATENCY, ("quantile", "fp32_ms", "int8_ms"), _curve(measured.serving))
    write_csv(
        paths.BENCH_SPEEDUP,
        ("batch", "speedup", "low95", "high95"),
        ((each.samples, *_interval(each.interval).values()) for each in measured.by_batch()),
    )
    write_csv(
        paths.OPERATORS,
        ("operator", "fp32_ms", "int8_ms", "fp32_share", "int8_share"),
        ((operator, *map(rounded, figures)) for operator, *figures in measured.profile.rows()),
    )
    write_json(paths.BENCH, metrics(measured, machine_id, threads, decision))


def metrics(measured: Measured, machine_id: str, threads: int, decision: Decision) -> dict[str, Any]:
    """The tree of metrics/bench.json; what is unknown is null, with the reason under `bench_notes`."""
    notes: dict[str, str] = {}
    serving, noise = measured.serving, measured.noise
    tree: dict[str, Any] = {
        "latency": _latency(serving, notes),
        "speedup": {**_interval(serving.interval), "verdict": serving.interval.verdict},
        "throughput": _throughput(serving),
        **_footprints(measured, notes),
        **{f"batch_{each.samples}": _at_batch(each) for each in measured.by_batch()},
        **{f"batch_{size}": dict.fromkeys(_at_batch(serving)) for size in measured.left_out},
        "call": {"floor_ms": rounded(measured.floor_ms), "overhead_bound": measured.overhead_bound},
        "control": _interval(measured.control),
        "noise": {
            "quiet_share": rounded(noise.quiet_share),
            "cpu_share": rounded(noise.cpu_share),
            "others_share": rounded(noise.others_share),
            "stolen_share": rounded(noise.stolen_share),
            "waiting_share": rounded(noise.waiting_share),
            "throttled_s": rounded(noise.throttled_s),
            "load": rounded(noise.load),
            "found": str(noise) or "nothing",
        },
        "measured": {
            "machine_id": machine_id,
            "threads": threads,
            "batch": serving.samples,
            "launches": serving.launches,
            "stopped_by": serving.stopped_by,
            "rounds": "all" if serving.all_rounds else "quiet",
        },
        "deploy": decision.deploy,
        "reason": decision.reason,
    }
    notes |= {f"batch_{size}": f"not measured: {reason}" for size, reason in measured.left_out.items()}
    if noise.cpu_share is None:
        notes["cpu_share"] = "known with one thread only: several wait for each other"
    for key in ("others_share", "stolen_share", "waiting_share", "throttled_s"):
        if tree["noise"][key] is None:
            notes[key] = "this system does not count it"
    return tree | {"bench_notes": notes}


def tell(measured: Measured, sizes_mb: tuple[float, float], decision: Decision) -> None:
    """Print tables of what was found, and the conclusion."""
    rows = [
        (
            each.samples,
            each.fp32.p50_ms,
            each.int8.p50_ms,
            *_throughput(each).values(),
            str(each.interval),
            each.interval.verdict,
        )
        for each in measured.by_batch()
    ]
    headers = ("batch", "fp32 ms", "INT8 ms", "fp32 /s", "INT8 /s", "speed-up (95 % interval)", "verdict")
    print(tabulate(rows, headers, tablefmt="simple", floatfmt=".3g"))
    for size, reason in measured.left_out.items():
        print(f"Batch {size} was not measured: {reason}.")
    print()
    takes: list[tuple[str, float, float]] = [("file, MB", *sizes_mb)]
    if measured.footprints:
        fp32, int8 = measured.footprints
        takes += [
            ("memory, MB", fp32.resident_mb, int8.resident_mb),
            ("load, ms", fp32.load_ms, int8.load_ms),
            ("first run, ms", fp32.first_ms, int8.first_ms),
        ]
    print(tabulate(takes, ("takes", "fp32", "INT8"), tablefmt="simple", floatfmt=".3g"))
    print()
    operators = [
        (operator, fp32_ms, int8_ms, f"{fp32_share:.0%}", f"{int8_share:.0%}")
        for operator, fp32_ms, int8_ms, fp32_share, int8_share in measured.profile.rows()[:_OPERATORS_SHOWN]
    ]
    print(tabulate(operators, ("operator", "fp32 ms", "INT8 ms", "fp32", "INT8"), tablefmt="simple", floatfmt=".3g"))
    print()
    serving = measured.serving
    print(
        f"{serving.launches} launches, {_ENDED[serving.stopped_by]}. "
        f"The fp32 model against itself on this machine: {measured.control}. "
        f"Noise: {str(measured.noise) or 'nothing found'}."
    )
    print(f"Deploy {decision.deploy}. {decision.reason}")


def _latency(found: Comparison, notes: dict[str, str]) -> dict[str, float | None]:
    latency = {"fp32_p50_ms": rounded(found.fp32.p50_ms), "int8_p50_ms": rounded(found.int8.p50_ms)}
    for label, share in _TAIL.items():
        for model, ns in (("fp32", found.fp32.all_ns), ("int8", found.int8.all_ns)):
            key = f"{model}_{label}_ms"
            latency[key] = rounded(quantile_ms(ns, share))
            if latency[key] is None:
                notes[key] = f"{label} takes {calls_for(share)} calls, {len(ns)} were timed"
    return latency


def _interval(interval: Interval) -> dict[str, float | None]:
    return {"ratio": rounded(interval.ratio), "low95": rounded(interval.low), "high95": rounded(interval.high)}


def _throughput(found: Comparison) -> dict[str, float | None]:
    """Samples a second of one session that is always busy."""
    return {
        "fp32_per_s": rounded(found.samples / found.fp32.p50_ms * 1e3),
        "int8_per_s": rounded(found.samples / found.int8.p50_ms * 1e3),
    }


def _at_batch(found: Comparison) -> dict[str, Any]:
    return {
        "fp32_p50_ms": rounded(found.fp32.p50_ms),
        "int8_p50_ms": rounded(found.int8.p50_ms),
        **_throughput(found),
        "speedup": rounded(found.interval.ratio),
        "low95": rounded(found.interval.low),
        "high95": rounded(found.interval.high),
        "verdict": found.interval.verdict,
    }


def _footprints(measured: Measured, notes: dict[str, str]) -> dict[str, dict[str, Any]]:
    memory: dict[str, float | None] = {}
    load: dict[str, float | None] = {}
    for model, found in zip(("fp32", "int8"), measured.footprints or (None, None), strict=True):
        memory[f"{model}_mb"] = rounded(found.resident_mb) if found else None
        memory[f"{model}_peak_load_mb"] = rounded(found.peak_load_mb) if found else None
        memory[f"{model}_peak_run_mb"] = rounded(found.peak_run_mb) if found else None
        load[f"{model}_ms"] = rounded(found.load_ms) if found else None
        load[f"{model}_first_ms"] = rounded(found.first_ms) if found else None
    reason = "this system does not tell a process its peak" if measured.footprints else "bench.memory is false"
    notes |= {key: reason for key, value in (memory | load).items() if value is None}
    method = measured.footprints[0].method if measured.footprints else "none: bench.memory is false"
    return {"memory": memory | {"method": method}, "load": load}


def _curve(found: Comparison) -> Iterable[tuple[float | None, ...]]:
    for share in map(float, _CURVE):
        row = [quantile_ms(ns, share) for ns in (found.fp32.all_ns, found.int8.all_ns)]
        if None not in row:
            yield (share, *map(rounded, row))
