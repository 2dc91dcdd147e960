"""What to try after a miss, in order, each with the words to type."""

import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from stages.common import isa
from stages.common.base.params import Params, Parity, Quantize
from stages.parity.caveats import FAIR_SQNR_DB, unbounded
from stages.parity.judgement import Judgement
from stages.parity.suspects import Diagnosis
from stages.parity.verdict import Rule

BROKEN = 0.5
"""An output that moves by more than this share of its range is wrong: no tolerance is advised that would accept it."""

_OF_OUTPUTS = frozenset({"abs_tol", "mean_tol", "min_sqnr_db", "min_cosine"})


@dataclass(frozen=True)
class Attempt:
    """One thing to try: the overrides of `dvc exp run`, and what speaks for it."""

    overrides: tuple[str, ...]
    words: str

    @property
    def command(self) -> str:
        return "dvc exp run " + " ".join(f"-S {override}" for override in self.overrides)


def attempts(found: Judgement, diagnosis: Diagnosis, params: Params) -> list[Attempt]:
    """From the surest to the last resort. A NaN, or a changed shape, has no knob but the nodes."""
    nodes = list(_nodes(diagnosis, params.quantize))
    if any(rule.name in ("shape", "nonfinite") for rule in found.missed):
        return nodes
    formats = list(_format(found, params))
    most = diagnosis.repair is not None and 2 * len(diagnosis.repair.nodes) > quantized_nodes(diagnosis)
    remedies = [*formats, *nodes] if most else [*nodes, *formats]
    return [*_relative(found, params.parity), *remedies, *_tolerances(found, params.parity)]


def quantized_nodes(diagnosis: Diagnosis) -> int:
    """How many nodes are quantized, as far as they were looked at."""
    return len({name for each in diagnosis.suspects for name in each.nodes})


def _relative(found: Judgement, params: Parity) -> Iterator[Attempt]:
    """Where only the default absolute tolerances fail on outputs that are no probabilities: another measure."""
    outputs = [found.comparison.outputs[rule.output] for rule in found.missed if rule.name in ("abs_tol", "mean_tol")]
    if len(outputs) < len(found.missed) or not all(unbounded(output, params) for output in outputs):
        return
    sqnr = min(output.signal.sqnr_db or 0.0 for output in outputs)
    if sqnr >= FAIR_SQNR_DB:
        words = (
            f"judges '{outputs[0].name}' by its noise, {sqnr:.0f} dB below the signal, as absolute tolerances cannot"
        )
        yield Attempt(("parity.abs_tol=null", "parity.mean_tol=null", f"parity.min_sqnr_db={FAIR_SQNR_DB:g}"), words)


def _nodes(diagnosis: Diagnosis, quantize: Quantize) -> Iterator[Attempt]:
    repair = diagnosis.repair
    if repair is None:
        return
    names = [*quantize.exclude_nodes, *(name for name in repair.nodes if name not in quantize.exclude_nodes)]
    words = (
        f"keeps {len(repair.nodes)} of {quantized_nodes(diagnosis)} quantized nodes float; "
        f"tried on {diagnosis.samples} samples, the worst among them: "
        f"the largest difference becomes {repair.max_abs:.2g}"
    )
    yield Attempt((shlex.quote(f"quantize.exclude_nodes={json.dumps(names)}"),), words)


def _format(found: Judgement, params: Params) -> Iterator[Attempt]:
    quantize = params.quantize
    if not quantize.per_channel and quantize.method != "weight_only":
        yield Attempt(("quantize.per_channel=true",), "one scale for each output channel: about half the error")
    if not quantize.reduce_range and quantize.weight_type == "QInt8" and isa.here() in isa.SATURATING:
        yield Attempt(
            ("quantize.reduce_range=true",), f"8-bit products may saturate on {isa.here()}; 7-bit ones do not"
        )
    alone = found.setting.free and found.setting.batch > 1
    if alone and quantize.method == "dynamic" and found.effect.serving:
        yield Attempt(
            ("serving.batch_size=1",),
            f"if production can serve samples alone: in batches of {found.setting.batch} the same samples move by "
            f"{max(found.effect.serving.values()):.2g}",
        )
    if quantize.method == "static":
        words = "takes the ranges of activations from each batch, not from calibration samples"
        yield Attempt(("quantize.method=dynamic",), words)
    if quantize.method != "weight_only":
        yield Attempt(
            ("quantize.method=weight_only", "quantize.weight_type=QInt8"),
            "scales activations by blocks within a sample: outliers matter less, the batch does not; "
            "slower in large batches",
        )


def _tolerances(found: Judgement, params: Parity) -> Iterator[Attempt]:
    missed: dict[str, list[Rule]] = {}
    for rule in found.missed:
        own = rule.output in params.outputs and rule.name in _OF_OUTPUTS
        key = f"outputs.{rule.output}.{rule.name}" if own else rule.name
        output = found.comparison.outputs.get(rule.output)
        broken = output is not None and (output.relative_max or 0.0) > BROKEN
        if rule.value is not None and math.isfinite(rule.value) and rule.name != "equal" and not broken:
            missed.setdefault(key, []).append(rule)
    for key, rules in missed.items():
        worst = min(rules, key=lambda rule: rule.margin or 0.0)
        assert worst.value is not None
        limit = _down(worst.value) if worst.name.startswith("min_") else _up(worst.value)
        yield Attempt((f"parity.{key}={limit:g}",), f"only if so large a change of '{worst.output}' does no harm")


def _up(value: float) -> float:
    """The next number of two significant digits that is no smaller."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return float(f"{math.ceil(value / step * (1 - 1e-12)) * step:.2g}")


def _down(value: float) -> float:
    """The next number of two significant digits, or of three decimals below 1, that is no larger."""
    step = 0.001 if abs(value) < 1 else 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return math.floor(value / step) * step
