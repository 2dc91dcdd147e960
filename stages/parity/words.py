"""What a person reads: what was found, the rules, why a rule was missed and what to try, then one sentence."""

from collections.abc import Iterator, Sequence

from tabulate import tabulate

from stages.common import isa
from stages.common.compare import OutputComparison
from stages.parity import evidence
from stages.parity.explanation import Explanation
from stages.parity.judgement import Judgement
from stages.parity.task import task
from stages.parity.verdict import Rule

SHOWN = 5
MANY = 8


def report(found: Judgement, caveats: list[str], why: Explanation | None) -> str:
    """All of it, without a trailing newline."""
    parts = [_outputs(found), "\n".join(_lines(found)), _rules(found)]
    if why is not None:
        parts += _explained(found, why)
    parts += [f"Note: {each}." for each in caveats]
    return "\n\n".join(part for part in [*parts, _sentence(found)] if part)


def _outputs(found: Judgement) -> str:
    """The outputs, or of many those that moved most."""
    listed = list(found.comparison.outputs.values())
    shown = sorted(listed, key=lambda each: -(each.relative_max or 0.0))[:MANY] if len(listed) > MANY else listed
    more = [(f"and {len(listed) - MANY} outputs that moved less",)] if len(listed) > MANY else []
    rows = [*map(_output, shown), *more]
    header = ("output", "kind", "max", "p99.9", "p99", "mean", "max/range", "SQNR dB", "min cosine", "equal")
    return _table(rows, header)


def _output(output: OutputComparison) -> tuple[str, ...]:
    error = output.error
    return (
        output.name,
        _kind(output),
        _number(error.maximum),
        _number(error.quantile(0.999)),
        _number(error.quantile(0.99)),
        _number(error.mean),
        _number(output.relative_max),
        _number(output.signal.sqnr_db if error.count else None),
        _number(output.cosine.minimum),
        "" if output.equality is None else f"{output.equality:.2%}",
    )


def _kind(output: OutputComparison) -> str:
    if not output.values:
        return "empty"
    if output.is_float:
        return "probabilities" if output.probabilities else "float"
    return {"b": "bool", "i": "integer", "u": "integer"}.get(output.dtype.lstrip("<>|=")[0], "text")


def _lines(found: Judgement) -> Iterator[str]:
    comparison, flips = found.comparison, found.comparison.flips
    yield f"{_samples(comparison.samples)} in batches of {found.setting.batch}, on {isa.here()}."
    if flips.count and flips.rate_high95 is not None:
        apart = f" ({flips.confident} confident, {flips.ties} ties apart)" if flips.margins_known else ""
        yield (
            f"Decisions ({comparison.decider.description}): {flips.flips} of {flips.count} flip{apart}; "
            f"with 95 % confidence the flip rate is at most {flips.rate_high95:.2%}."
        )
    measured = task(comparison)
    if measured.fp32 is not None and measured.int8 is not None:
        words = f": {measured.words}" if measured.words else ""
        yield f"Task ({measured.metric}): {measured.fp32:.4f} in fp32, {measured.int8:.4f} in int8{words}."


def _rules(found: Judgement) -> str:
    """The rules, or of many those that are missed and of each other kind the one with the least margin."""
    shown = found.rules
    if len(shown) > 2 * MANY:
        closest: dict[str, Rule] = {}
        for rule in sorted(shown, key=lambda each: each.passed * (each.margin or 0.0)):
            closest.setdefault(rule.name, rule)
        shown = [rule for rule in shown if not rule.passed or rule in closest.values()]
    rows: list[tuple[str, ...]] = [
        (
            rule.name,
            rule.output,
            _number(rule.value),
            _number(rule.limit),
            _number(rule.margin),
            "" if rule.sample is None else str(rule.sample),
            "ok" if rule.passed else "MISS",
            rule.words,
        )
        for rule in shown
    ]
    if len(shown) < len(found.rules):
        rows.append((f"and {len(found.rules) - len(shown)} rules that hold",))
    return _table(rows, ("rule", "of", "value", "limit", "margin", "sample", "", ""))


def _explained(found: Judgement, why: Explanation) -> Iterator[str]:
    rows = [
        (str(each.sample), output.name, str(each.position), _shown(each.reference), _shown(each.candidate))
        for _, output, each in evidence.worst(found.comparison)[:SHOWN]
    ]
    if rows:
        yield "Worst samples:\n" + _table(rows, ("sample", "output", "position", "fp32", "int8"))
    if why.outliers:
        far = [
            (each.input, str(each.position), str(each.sample), _number(each.value), _number(each.median), _far(each.z))
            for each in why.outliers
        ]
        yield "Input features far outside the rest, in these samples or in their batches:\n" + _table(
            far, ("input", "feature", "sample", "value", "median", "robust z")
        )
    if why.diagnosis.suspects:
        nodes = [
            (" ".join(each.nodes), each.op_type, _number(each.sqnr_db), _number(each.max_abs))
            for each in why.diagnosis.suspects[:SHOWN]
        ]
        yield "Nodes at fault, each alone in INT8:\n" + _table(
            nodes, ("node", "op", "SQNR dB of the outputs", "max error")
        )
    elif why.diagnosis.reason:
        yield f"Nodes at fault: unknown, as {why.diagnosis.reason}."
    if why.attempts:
        yield "Try, in this order:\n" + "\n".join(
            f"{number}. {each.command}\n   {each.words}" for number, each in enumerate(why.attempts, start=1)
        )


def _sentence(found: Judgement) -> str:
    where = f"{_samples(found.comparison.samples)} in batches of {found.setting.batch}"
    if found.passed:
        return f"Parity holds on {where} ({', '.join(dict.fromkeys(rule.name for rule in found.rules))})."
    more = f"; and {len(found.missed) - SHOWN} more" if len(found.missed) > SHOWN else ""
    return f"Parity is missed on {where}: " + "; ".join(map(_miss, found.missed[:SHOWN])) + more + "."


def _miss(rule: Rule) -> str:
    if rule.name in ("shape", "nonfinite"):
        return f"{rule.output} has {rule.words}"
    of = f" of {rule.output}" if rule.output else ""
    words = f" ({rule.words})" if rule.words else ""
    return f"{rule.name}{of} is {_number(rule.value) or 'unknown'}, the limit {_number(rule.limit)}{words}"


def _samples(count: int) -> str:
    return f"{count} sample{'s' * (count != 1)}"


def _table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    return str(tabulate(rows, header, tablefmt="simple", disable_numparse=True))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _far(z: float) -> str:
    return "constant elsewhere" if z == float("inf") else f"{z:.0f}"


def _shown(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
