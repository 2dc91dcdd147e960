"""The figures that are compared between revisions: where each is found, which way is better, what it depends on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stages.report.revision import Revision


@dataclass(frozen=True)
class Figure:
    """One row of the comparison.

    Attributes:
        group: the heading of the rows that it belongs to.
        key: its key in the headlines of `stage`, joined with dots.
        better: the direction of an improvement.
        models: the models that it depends on.
        headline: whether it is never collapsed, even if it did not change.
        proportional: whether a change in percent means something, unlike that of a logarithm or a cosine.
    """

    group: str
    label: str
    stage: str
    key: str
    unit: str = ""
    better: Literal["lower", "higher", "neither"] = "lower"
    models: Sequence[str] = ("fp32", "int8")
    headline: bool = False
    proportional: bool = True

    @property
    def noise(self) -> Literal["samples", "machine", "nothing"]:
        """What can change the figure although the model is the same."""
        if self.stage == "parity" and self.key.startswith(("decisions.", "task.")):
            return "samples"
        return "machine" if self.stage == "bench" else "nothing"

    def of(self, revision: Revision) -> Any:
        """The value, or None if unknown."""
        return revision.value(self.stage, self.key)


SPEEDUP = Figure("Latency", "speed-up (95 % interval)", "bench", "speedup.ratio", "×", "higher", headline=True)

FIGURES = (
    Figure("Decision", "gate open", "gate", "open", better="neither", headline=True),
    Figure("Decision", "deploy", "gate", "deploy", better="neither", headline=True),
    Figure("Size", "INT8 file", "quantize", "size.int8_mb", "MB", headline=True),
    Figure("Size", "fp32 file", "quantize", "size.fp32_mb", "MB"),
    Figure("Size", "times smaller", "quantize", "size.times_smaller", "×", "higher"),
    Figure("Size", "nodes that can be quantized", "quantize", "nodes.quantizable", better="neither"),
    Figure("Size", "nodes quantized", "quantize", "nodes.quantized", better="neither"),
    Figure("Size", "nodes kept in float", "quantize", "nodes.kept_float", better="neither"),
    SPEEDUP,
    Figure("Latency", "INT8, median call", "bench", "latency.int8_p50_ms", "ms", models=("int8",), headline=True),
    Figure("Latency", "fp32, median call", "bench", "latency.fp32_p50_ms", "ms", models=("fp32",)),
    Figure("Latency", "INT8, load", "bench", "load.int8_ms", "ms", models=("int8",)),
    Figure("Latency", "fp32, load", "bench", "load.fp32_ms", "ms", models=("fp32",)),
    Figure("Memory", "INT8", "bench", "memory.int8_mb", "MB", models=("int8",), headline=True),
    Figure("Memory", "fp32", "bench", "memory.fp32_mb", "MB", models=("fp32",)),
    Figure("Answers", "parity passed", "parity", "passed", better="neither", headline=True),
    Figure("Answers", "largest difference", "parity", "diff.max_abs", headline=True),
    Figure("Answers", "mean difference", "parity", "diff.mean_abs"),
    Figure("Answers", "normalized RMS error", "parity", "diff.nrmse"),
    Figure("Answers", "signal to quantization noise", "parity", "diff.sqnr_db", "dB", "higher", proportional=False),
    Figure("Answers", "smallest cosine similarity", "parity", "diff.min_cosine", better="higher", proportional=False),
    Figure("Answers", "decisions flipped", "parity", "decisions.flips", headline=True),
    Figure("Answers", "flip rate, 95 % bound", "parity", "decisions.flip_rate_high95"),
    Figure("Answers", "task metric of INT8", "parity", "task.int8", better="higher"),
    Figure("Answers", "task metric of fp32", "parity", "task.fp32", better="higher", models=("fp32",)),
    Figure("Answers", "batch effect, largest difference", "parity", "batch_effect.max_abs"),
    Figure("Answers", "weights saturating, share", "quantize", "saturation.share"),
    Figure("Answers", "samples judged", "parity", "judged.samples", better="neither"),
    Figure("Export", "drift, largest difference", "export", "drift.max_abs", models=("fp32",)),
    Figure("Export", "drift, decisions flipped", "export", "drift.flips", models=("fp32",)),
    Figure("Export", "evaluation samples", "export", "eval.samples", better="neither"),
)
