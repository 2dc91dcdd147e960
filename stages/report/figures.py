"""The figures of the report, in their order: where each stands, its unit, and which way is better."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Figure:
    """One row of the report.

    Attributes:
        stage: whose metrics file holds it.
        key: in that file, joined with dots.
        label: for a person, with the unit.
        better: which direction a reviewer hopes for.
        machine_bound: an absolute time or amount that means nothing beside another machine's.
    """

    stage: str
    key: str
    label: str
    better: Better
    machine_bound: bool = False

    def of(self, metrics: Mapping[str, Mapping[str, Any]]) -> Any:
        """The value, or None where it is unknown."""
        node: Any = metrics.get(self.stage, {})
        for part in self.key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node


FIGURES = (
    Figure("quantize", "status", "status", "neither"),
    Figure("quantize", "size.int8_mb", "size of INT8, MB", "lower"),
    Figure("quantize", "size.fp32_mb", "size of fp32, MB", "lower"),
    Figure("quantize", "size.times_smaller", "times smaller", "higher"),
    Figure("quantize", "nodes.quantized", "nodes quantized", "higher"),
    Figure("quantize", "nodes.kept_float", "nodes kept float", "lower"),
    Figure("parity", "error.max_abs", "largest difference", "lower"),
    Figure("parity", "error.p99_abs", "p99 difference", "lower"),
    Figure("parity", "error.mean_abs", "mean difference", "lower"),
    Figure("parity", "error.sqnr_db", "SQNR, dB", "higher"),
    Figure("parity", "error.min_cosine", "smallest cosine", "higher"),
    Figure("parity", "decisions.flips", "decisions flipped", "lower"),
    Figure("parity", "decisions.confident_flips", "confident decisions flipped", "lower"),
    Figure("parity", "decisions.flip_rate_high95", "flip rate, 95 % bound", "lower"),
    Figure("parity", "task.fp32", "task metric of fp32", "higher"),
    Figure("parity", "task.int8", "task metric of INT8", "higher"),
    Figure("parity", "batch_effect.max_abs", "batch effect, largest difference", "lower"),
    Figure("bench", "speedup.ratio", "speed-up", "higher"),
    Figure("bench", "speedup.low95", "speed-up, low end of 95 %", "higher"),
    Figure("bench", "speedup.high95", "speed-up, high end of 95 %", "higher"),
    Figure("bench", "latency.fp32_p50_ms", "p50 of fp32, ms", "lower", machine_bound=True),
    Figure("bench", "latency.int8_p50_ms", "p50 of INT8, ms", "lower", machine_bound=True),
    Figure("bench", "memory.fp32_mb", "memory of fp32, MB", "lower", machine_bound=True),
    Figure("bench", "memory.int8_mb", "memory of INT8, MB", "lower", machine_bound=True),
    Figure("bench", "load.fp32_ms", "load time of fp32, ms", "lower", machine_bound=True),
    Figure("bench", "load.int8_ms", "load time of INT8, ms", "lower", machine_bound=True),
    Figure("export", "drift.max_abs", "export drift, largest difference", "lower"),
    Figure("export", "drift.flips", "export drift, decisions flipped", "lower"),
)
