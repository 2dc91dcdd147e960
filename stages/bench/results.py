"""What bench found, as files and on screen."""

import numpy as np
from tabulate import tabulate

from stages.bench.decision import Decision
from stages.bench.footprint import Footprint
from stages.bench.latency import Comparison
from stages.bench.quantiles import quantile_ms
from stages.common import paths
from stages.common.files import rounded, write_csv, write_json


def write(serving: Comparison, fp32: Footprint, int8: Footprint, decision: Decision) -> None:
    """Write the metrics."""
    interval = serving.interval
    levels = [float(each) for each in np.round(np.arange(0.05, 1, 0.05), 2)]
    write_csv(
        paths.BENCH_LATENCY,
        ("quantile", "fp32_ms", "int8_ms"),
        (
            (level, rounded(quantile_ms(serving.fp32_ns, level)), rounded(quantile_ms(serving.int8_ns, level)))
            for level in levels
        ),
    )
    write_csv(
        paths.BENCH_SPEEDUP,
        ("batch", "low95", "speedup", "high95"),
        [(serving.samples, rounded(interval.low), rounded(interval.ratio), rounded(interval.high))],
    )
    write_csv(paths.OPERATORS, ("operator", "fp32_ms", "int8_ms", "fp32_share", "int8_share"), [])
    write_json(
        paths.BENCH,
        {
            "latency": {
                "fp32_p50_ms": rounded(quantile_ms(serving.fp32_ns, 0.5)),
                "int8_p50_ms": rounded(quantile_ms(serving.int8_ns, 0.5)),
                "fp32_p99_ms": rounded(quantile_ms(serving.fp32_ns, 0.99)),
                "int8_p99_ms": rounded(quantile_ms(serving.int8_ns, 0.99)),
            },
            "speedup": {
                "ratio": rounded(interval.ratio),
                "low95": rounded(interval.low),
                "high95": rounded(interval.high),
                "verdict": interval.verdict,
            },
            "memory": {"fp32_mb": rounded(fp32.resident_mb), "int8_mb": rounded(int8.resident_mb)},
            "load": {"fp32_ms": rounded(fp32.load_ms), "int8_ms": rounded(int8.load_ms)},
            "deploy": decision.deploy,
            "reason": decision.reason,
        },
    )


def tell(serving: Comparison, fp32: Footprint, int8: Footprint, size_ratio: float, decision: Decision) -> None:
    """Print a table and the conclusion."""
    rows = [
        ("latency p50, ms", quantile_ms(serving.fp32_ns, 0.5), quantile_ms(serving.int8_ns, 0.5)),
        ("memory, MB", fp32.resident_mb, int8.resident_mb),
        ("load, ms", fp32.load_ms, int8.load_ms),
    ]
    print(tabulate(rows, headers=("", "fp32", "INT8"), tablefmt="simple", floatfmt=".3g"))
    print()
    print(f"Deploy {decision.deploy}. {decision.reason}")
