"""What parity prints: the outputs, the rules, notes, after a miss the cause and what to try, then the verdict."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from stages.common.rule import Outcome, Rule, failures, figure_text
from stages.parity.judge import ParityResult
from stages.parity.notes import same_model

NAME = 40
MANY = 8
NOTES = 4
MARKS = {Outcome.PASSED: "ok", Outcome.FAILED: "MISS", Outcome.NOT_APPLICABLE: "n/a", Outcome.OFF: "off"}

Tree = Mapping[str, Any]


def render(result: ParityResult) -> str:
    """The whole screen, without a trailing newline."""
    parts = [_outputs(result.figures["outputs"]), "\n".join(_lines(result)), _rules(result.rules)]
    if not result.passed:
        parts += _cause(result)
    parts.append("\n".join(f"Note: {note}" for note in result.notes[:NOTES]))
    parts += _advice(result)
    return "\n\n".join(part for part in [*parts, _conclusion(result)] if part)


def _outputs(outputs: Mapping[str, Tree]) -> str:
    """A table of the outputs; of many, those that moved most. Empty columns are left out."""
    shown = list(outputs.items())
    if len(shown) > MANY:
        shown = sorted(shown, key=lambda item: -(item[1].get("max_of_range") or 0.0))[:MANY]
    header = ("output", "kind", "max", "p99", "mean", "NRMSE", "SQNR dB", "min cosine", "equal")
    keys = ("max_abs", "p99_abs", "mean_abs", "nrmse", "sqnr_db", "min_cosine")
    rows = [
        (_name(name), output["kind"], *(figure_text(output.get(key)) for key in keys), _equal(output))
        for name, output in shown
    ]
    used = [column for column in range(len(header)) if any(row[column] for row in rows)]
    table = _table([[row[column] for column in used] for row in rows], [header[column] for column in used])
    hidden = len(outputs) - len(shown)
    return table + (f"\nand {hidden} more that moved less" if hidden else "")


def _equal(output: Tree) -> str:
    if output["is_float"] or not output["values"]:
        return ""
    equal = f"{1 - output['values_changed'] / output['values']:.2%}"
    return ">99.99%" if equal == "100.00%" and output["values_changed"] else equal


def _lines(result: ParityResult) -> Iterator[str]:
    figures = result.figures
    judged, decisions, task = figures["judged"], figures["decisions"], figures["task"]
    if decisions["count"]:
        margins = decisions["confident_flips"] is not None
        detail = (
            f" ({decisions['confident_flips']} confident, {decisions['tie_flips']} ties excluded)" if margins else ""
        )
        several = decisions["count"] > judged["samples"]
        counted = f", as {judged['samples']} samples show" if several else ""
        bound = f"at most {max(decisions['flip_rate_high95'], 1e-4):.2%} of all, at 95 % confidence{counted}"
        if same_model(figures):
            bound = "both files hold the same model"
        yield (
            f"Decisions ({_name(judged['decision'])}): {decisions['flips']} of {decisions['count']} flip{detail}; "
            f"{bound}."
        )
    if task["fp32"] is not None and task["int8"] is not None:
        chance = f": {task['chance']}" if task["chance"] else ""
        yield f"Task ({task['metric']}): {task['fp32']:.4f} in fp32, {task['int8']:.4f} in int8{chance}."


def _rules(rules: Sequence[Rule]) -> str:
    """A table of the rules, without a passed `nonfinite`; of many, those that failed and the closest of each kind."""
    listed = [rule for rule in rules if rule.name != "nonfinite" or rule.failed]
    shown = listed
    if len(listed) > 2 * MANY:
        closest: dict[str, Rule] = {}
        for rule in sorted(listed, key=lambda rule: math.inf if rule.margin is None else rule.margin):
            closest.setdefault(rule.name, rule)
        failed = failures(listed)[: 2 * MANY]
        shown = [rule for rule in listed if rule in failed or rule in closest.values()]
    if not shown:
        return ""
    rows = [
        (
            rule.name,
            _name(rule.output),
            figure_text(rule.value),
            figure_text(rule.limit),
            figure_text(rule.margin),
            "" if rule.sample is None else str(rule.sample),
            MARKS[rule.outcome],
        )
        for rule in shown
    ]
    lines = [_table(rows, ("rule", "of", "value", "limit", "margin", "sample", ""))]
    if len(shown) < len(listed):
        lines.append(f"and {len(listed) - len(shown)} more rules")
    lines += [f"{rule.name}{_of(rule)}: {rule.message}." for rule in shown if rule.message]
    return "\n".join(lines)


def _of(rule: Rule) -> str:
    return f" of {_name(rule.output)}" if rule.output else ""


def _cause(result: ParityResult) -> Iterator[str]:
    if worst := result.figures["worst"]:
        rows = [
            (str(row["sample"]), _name(row["output"]), str(row["position"]), _value(row["fp32"]), _value(row["int8"]))
            for row in worst
        ]
        yield "Worst samples:\n" + _table(rows, ("sample", "output", "position", "fp32", "int8"))
    if result.outliers:
        far = [(_name(row["input"]), str(row["position"]), str(row["sample"]), *_far(row)) for row in result.outliers]
        header = ("input", "feature", "sample", "value", "median", "robust z")
        yield "Input features with outliers, in these samples or in their batches:\n" + _table(far, header)


def _advice(result: ParityResult) -> Iterator[str]:
    if result.tried:
        yield result.tried
    if result.advice:
        yield "Try:\n" + "\n".join(
            f"{number}. {advice.command}\n   {advice.effect}" for number, advice in enumerate(result.advice, start=1)
        )
    elif result.tolerance is not None:
        yield f"Or, {result.tolerance.effect}:\n   {result.tolerance.command}"


def _far(row: Tree) -> tuple[str, str, str]:
    z = "constant elsewhere" if row["z"] is None else f"{row['z']:.0f}"
    return figure_text(row["value"]), figure_text(row["median"]), z


def _conclusion(result: ParityResult) -> str:
    judged = result.figures["judged"]
    samples = judged["samples"]
    where = f"{samples} sample{'s' * (samples != 1)} in batches of {judged['batch']}, on {judged['isa']}"
    if result.passed:
        proof = ", but that proves nothing" if _proves_nothing(result) else ""
        return f"Parity passed on {where}{proof}."
    missed = list(dict.fromkeys(f"{rule.name}{_of(rule)}" for rule in failures(result.rules)))
    more = f" and {len(missed) - 3} more" if len(missed) > 3 else ""
    return f"Parity failed on {where}: {', '.join(missed[:3])}{more}."


def _proves_nothing(result: ParityResult) -> bool:
    outputs = result.figures["outputs"]
    if not any(output["values"] for output in outputs.values()):
        return True
    compared = {name for name, output in outputs.items() if output.get("values_compared")}
    return any(outputs[name]["values"] for name in result.vacuous) and compared <= set(result.vacuous)


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    return str(tabulate(rows, header, tablefmt="simple", disable_numparse=True))


def _name(text: str) -> str:
    """A name; if it is too long for a table, its middle is left out."""
    half = (NAME - 3) // 2
    return text if len(text) <= NAME else f"{text[:half]}...{text[-half:]}"


def _value(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
