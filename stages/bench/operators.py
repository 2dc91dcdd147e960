"""Kernel time by operator type, which shows why an INT8 model may be slower."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.bench.inputs import IdentityModel
from stages.common.timing import process
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import LaunchSettings, ModelPair

# INT8 operator -> the fp32 operators that it replaces, by the names of the quantizers and of ONNX Runtime's fusions.
_CONV = ("Conv", "FusedConv", "NhwcFusedConv")
_MATMUL = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
_INTEGER_MATMUL = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm")
_FLOAT_FORM = {
    **dict.fromkeys(("ConvInteger", "QLinearConv"), _CONV),
    **dict.fromkeys((*_INTEGER_MATMUL, "MatMulNBits"), _MATMUL),
    "DynamicQuantizeLSTM": ("LSTM",),
    "QAttention": ("Attention",),
    "QEmbedLayerNormalization": ("EmbedLayerNormalization",),
}
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_MANY_CONVERSIONS = 0.2


@dataclass(frozen=True)
class Profile:
    """Milliseconds per call by operator type, of both models."""

    fp32: Mapping[str, float]
    int8: Mapping[str, float]

    def rows(self) -> list[tuple[str, float, float, float, float]]:
        """Operator, fp32 ms, INT8 ms, share of fp32, share of INT8; longest first."""
        rows = [
            (name, self.fp32.get(name, 0.0), self.int8.get(name, 0.0), _share(self.fp32, name), _share(self.int8, name))
            for name in {*self.fp32, *self.int8}
        ]
        return sorted(rows, key=lambda row: (-max(row[1], row[2]), row[0]))

    def finding(self) -> str:
        """Where the INT8 model spends its time, and the share of the same work in fp32; empty without kernel times."""
        if not any(self.int8.values()):
            return ""
        top = max(self.int8, key=lambda name: self.int8[name])
        finding = f"{top} takes {_share(self.int8, top):.0%} of the INT8 model's time"
        if forms := [form for form in _FLOAT_FORM.get(top, (top,)) if form in self.fp32]:
            finding += f"; in fp32 {' and '.join(forms)} took {sum(_share(self.fp32, form) for form in forms):.0%}"
        conversions = sum(_share(self.int8, name) for name in _CONVERSIONS)
        if top not in _CONVERSIONS and conversions >= _MANY_CONVERSIONS:
            finding += f"; quantizing and dequantizing take {conversions:.0%}"
        return f"{finding}."


def profile(
    models: ModelPair, feed: StoredFeed, identity: IdentityModel, settings: LaunchSettings, folder: Path
) -> Profile:
    """Profile both models in a fresh process; the profiler writes its files into `folder`.

    Raises:
        StageError: a model does not load or run.
    """
    job = {
        "models": [str(path) for path in models],
        "threads": settings.threads,
        "feed": feed,
        "identity": identity,
        "folder": str(folder),
    }
    return Profile(**process.ask("stages.bench.workers.profiler", job, (settings.lock,)))


def _share(times: Mapping[str, float], operator: str) -> float:
    total = sum(times.values())
    return times.get(operator, 0.0) / total if total else 0.0
