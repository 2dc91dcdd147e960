"""Time by operator type, from ONNX Runtime's profile, and what it says about a slower model."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

Event = Mapping[str, Any]

_KERNEL = "_kernel_time"

# What the INT8 operator does the work of, in fp32: the names of the quantizers, and of ONNX Runtime's fusions.
_CONV = ("Conv", "FusedConv", "NhwcFusedConv")
_MATMUL = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
_FLOAT_FORM = {
    "ConvInteger": _CONV,
    "QLinearConv": _CONV,
    "MatMulInteger": _MATMUL,
    "MatMulIntegerToFloat": _MATMUL,
    "DynamicQuantizeMatMul": _MATMUL,
    "QLinearMatMul": _MATMUL,
    "QGemm": _MATMUL,
    "MatMulNBits": _MATMUL,
    "DynamicQuantizeLSTM": ("LSTM",),
    "QAttention": ("Attention",),
    "QEmbedLayerNormalization": ("EmbedLayerNormalization",),
}
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_MANY_CONVERSIONS = 0.2

_CONTROL_FLOW = ("If", "Loop", "Scan")


def milliseconds(events: Sequence[Event], calls: int, overhead_us: float) -> dict[str, float]:
    """Kernel time of one call by operator type, in milliseconds.

    A kernel that runs others counts only what it does itself: the kernels of one thread nest. If, Loop and Scan count
    nothing, as what remains of them is the profiler's own work between the kernels that they run. Of each node the
    middle half of the calls is averaged: one interruption would otherwise outweigh a hundred calls.

    Args:
        events: of ONNX Runtime's profile, in any order; times in whole microseconds.
        calls: the last calls in the profile, that many; what came before is warm-up.
        overhead_us: what the profiler adds to each kernel, in microseconds.
    """
    starts = _starts(events, calls)
    kernels = _kernels(events, starts)
    spent: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * calls)
    for event, own in zip(kernels, _own_times(kernels), strict=True):
        operator = event["args"]["op_name"]
        if operator not in _CONTROL_FLOW:
            spent[operator, event["name"]][bisect_right(starts, event["ts"]) - 1] += max(0.0, own - overhead_us)
    totals: dict[str, float] = defaultdict(float)
    for (operator, _), durations in spent.items():
        totals[operator] += _middle_mean(durations) / 1e3
    return dict(totals)


def cheapest_kernel_us(events: Sequence[Event], calls: int) -> float:
    """The time of the cheapest node in microseconds: what the profiler adds to each kernel is not more than that."""
    durations: dict[str, list[float]] = defaultdict(list)
    for event in _kernels(events, _starts(events, calls)):
        durations[event["name"]].append(event["dur"])
    return min((_middle_mean(each) for each in durations.values()), default=0.0)


def _starts(events: Sequence[Event], calls: int) -> list[int]:
    """When the last `calls` calls started."""
    return sorted(event["ts"] for event in events if event["name"] == "model_run")[-calls:]


def _kernels(events: Sequence[Event], starts: Sequence[int]) -> list[Event]:
    """The kernels of these calls, one after the other, the outer before the inner."""
    kernels = [event for event in events if event["name"].endswith(_KERNEL) and event["ts"] >= starts[0]]
    return sorted(kernels, key=lambda event: (event["ts"], -event["dur"]))


def _own_times(kernels: Sequence[Event]) -> list[float]:
    """The durations without those of the kernels that run inside; `kernels` start one after the other."""
    own = [float(event["dur"]) for event in kernels]
    running: dict[Any, list[int]] = defaultdict(list)
    for number, event in enumerate(kernels):
        stack = running[event["tid"]]
        while stack and event["ts"] >= kernels[stack[-1]]["ts"] + kernels[stack[-1]]["dur"]:
            stack.pop()
        if stack:
            own[stack[-1]] -= event["dur"]
        stack.append(number)
    return own


def _middle_mean(values: Sequence[float]) -> float:
    ordered = sorted(values)
    cut = len(ordered) // 4
    return mean(ordered[cut : len(ordered) - cut])


@dataclass(frozen=True)
class Profile:
    """Milliseconds of one call by operator type, of both models."""

    fp32: Mapping[str, float]
    int8: Mapping[str, float]

    def rows(self) -> list[tuple[str, float, float, float, float]]:
        """Operator, fp32 ms, INT8 ms, share of fp32, share of INT8; the most time first."""
        both = {*self.fp32, *self.int8}
        rows = [
            (each, self.fp32.get(each, 0.0), self.int8.get(each, 0.0), _share(self.fp32, each), _share(self.int8, each))
            for each in both
        ]
        return sorted(rows, key=lambda row: (-max(row[1], row[2]), row[0]))

    def finding(self) -> str:
        """Where the INT8 model's time goes, and where that of fp32 went: a sentence without its stop."""
        if not any(self.int8.values()):
            return ""
        top = self._top()
        finding = f"{top} takes {_share(self.int8, top):.0%} of the INT8 model's time"
        forms = [form for form in _FLOAT_FORM.get(top, (top,)) if form in self.fp32]
        if not forms:
            return finding
        return f"{finding}; in fp32 {' and '.join(forms)} took {sum(_share(self.fp32, each) for each in forms):.0%}"

    def remedy(self) -> str:
        """What to do about an INT8 model that is slower: a sentence without its stop."""
        if not any(self.int8.values()):
            return "Ship fp32"
        top = self._top()
        if top == "ConvInteger":
            return (
                "Dynamic Conv has no fast kernel: set quantize.method to static, or leave Conv out of quantize.op_types"
            )
        conversions = sum(_share(self.int8, each) for each in _CONVERSIONS)
        if conversions >= _MANY_CONVERSIONS:
            return (
                f"Quantizing and dequantizing take {conversions:.0%} of its time, more than its small layers gain: "
                "ship fp32, or keep the smallest layers float by quantize.exclude_nodes"
            )
        if top == "MatMulNBits":
            return "Set quantize.weight_only.accuracy_level to 4, or quantize.method to dynamic"
        if top in _FLOAT_FORM:
            return f"Ship fp32, or keep what became {top} float by quantize.exclude_nodes"
        return "What was quantized is too small a part of it to gain: ship fp32"

    def _top(self) -> str:
        return max(self.int8, key=lambda each: self.int8[each])


def _share(times: Mapping[str, float], operator: str) -> float:
    total = sum(times.values())
    return times.get(operator, 0.0) / total if total else 0.0
