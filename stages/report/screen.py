"""The report as Markdown: verdict, next steps, changes, every rule, and collapsed evidence."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.common.rule import Outcome, Rule
from stages.report import evidence
from stages.report.changes import BaseComparison, Change, Mark, changes
from stages.report.compared import FIGURES, SPEEDUP
from stages.report.revision import Revision
from stages.report.stage import Report
from stages.report.text import (
    UNKNOWN,
    block,
    bullets,
    code,
    collapsed,
    escape,
    interval,
    is_number,
    number,
    plural,
    setting,
    table,
)

MARKS = {
    Outcome.PASSED: "✅\N{NO-BREAK SPACE}passed",
    Outcome.FAILED: "❌\N{NO-BREAK SPACE}failed",
    Outcome.OFF: "off",
    Outcome.NOT_APPLICABLE: "not applicable",
}
ROWS_SHOWN = 12
CHANGE_MARKS = {Mark.BETTER: "🟢\N{NO-BREAK SPACE}better", Mark.WORSE: "🔴\N{NO-BREAK SPACE}worse"}


def render(report: Report, pictures: str = "", name: str = "") -> str:
    """The whole report, with `pictures` (HTML) below the figures; `name` is the model's if there are several."""
    head, comparison = report.head, report.comparison
    suggestions, is_open = _suggestions(head), head.value("gate", "open") is True
    parts = [
        *([f"# {code(name)}"] if name else []),
        verdict(head),
        *([] if is_open else suggestions),
        evidence.conditions(head),
        *_warnings(report),
        *_rules(report.rules),
        *(_figures(head) if comparison is None else [*_changes(comparison), *_params(comparison.base, head)]),
        *([pictures] if pictures else []),
        *evidence.batches(head, comparison),
        *evidence.quantization(head),
        *evidence.frontier(head),
        *(suggestions if is_open else []),
        *evidence.worst_samples(head),
        *evidence.notes(head),
        f"<sub>{escape(head.name)}{f' against {escape(comparison.base.name)}' if comparison else ''}</sub>",
    ]
    return "\n\n".join(parts)


def table_of(reports: Mapping[str, Report]) -> str:
    """One line per model: what to deploy, and the headlines."""
    header = ("model", "verdict", "times smaller", "speed-up (95 % interval)", "largest difference")
    rows = []
    for name, report in reports.items():
        head = report.head
        times, difference = head.value("quantize", "size.times_smaller"), head.value("parity", "diff.max_abs")
        rows.append((code(name), _decision(head), number(times), _speedup(head), number(difference)))
    return table(header, rows)


def verdict(head: Revision) -> str:
    """The decision that the gate wrote, with its reason."""
    reason = escape(head.detail("gate", "reason") or "The gate gave no reason.")
    return f"## {_decision(head)}\n\n{reason}"


def _decision(head: Revision) -> str:
    deploy = "INT8" if head.value("gate", "deploy") == "int8" else "fp32"
    opened = head.value("gate", "open") is True
    decision = f"Deploy {deploy}" if opened else f"The gate is closed, deploy {deploy}"
    mark = "⚠️ Outdated:" if head.stale else "✅" if opened else "❌"
    return f"{mark} {decision}"


def _suggestions(head: Revision) -> list[str]:
    """What the gate advises; then what else parity tried, collapsed if the gate is open."""
    command = head.detail("gate", "advice")
    parts = ["**Run next**\n\n" + block(str(command))] if command else []
    tried = [trial for trial in head.detail("parity", "advice") or [] if isinstance(trial, Mapping)]
    lines = [
        f"{code(trial.get('command'))}: {escape(trial.get('effect'))}"
        for trial in tried
        if trial.get("command") != command
    ]
    lines += evidence.sentences([head.detail("parity", "tried")] if head.detail("parity", "tried") else [])
    if lines and head.value("gate", "open") is True:
        parts.append(collapsed("What else parity tried", bullets(lines)))
    elif lines:
        parts.append(("**Also tried**" if command else "**Try**") + "\n\n" + bullets(lines))
    return parts


def _warnings(report: Report) -> list[str]:
    lines = []
    if report.head.stale:
        keys = ", ".join(code(key) for key in report.head.stale)
        lines.append(f"{keys} changed since these figures were measured. Run `dvc repro`.")
    if (comparison := report.comparison) and comparison.timing:
        machine = evidence.machine(comparison.base)
        lines += map(escape, comparison.timing)
        lines.append(f"Milliseconds, memory and speed-ups are not compared. Base: {machine}.")
    if comparison and comparison.judging:
        lines += [*map(escape, comparison.judging), "Differences of answers are not called better or worse."]
    return ["> ⚠️ " + "<br>".join(lines)] if lines else []


def _figures(head: Revision) -> list[str]:
    known = [(figure, figure.of(head)) for figure in FIGURES]
    rows = [
        (figure.group, figure.label, shown(head, figure.key, value, figure.unit))
        for figure, value in known
        if value is not None
    ]
    return [table(("", "figure", "value"), _grouped(rows))]


def _changes(comparison: BaseComparison) -> list[str]:
    header = ("", "figure", "base", "this", "change", "")
    listed = changes(comparison)
    opened = [change for change in listed if change.moved or change.figure.headline]
    rest = [change for change in listed if change not in opened]
    parts = [table(header, _grouped(_change_row(change, comparison) for change in opened))]
    if rest:
        rows = _grouped(_change_row(change, comparison) for change in rest)
        parts.append(
            collapsed(f"{plural(len(rest), 'more figure')} without a change beyond noise", table(header, rows))
        )
    return parts


def _change_row(change: Change, comparison: BaseComparison) -> tuple[str, ...]:
    figure, then, now = change.figure, change.then, change.now
    after = shown(comparison.head, figure.key, now, figure.unit)
    if change.mark is Mark.NOT_COMPARED:
        return (figure.group, figure.label, "not compared", after, "", "")
    before = shown(comparison.base, figure.key, then, figure.unit)
    return (
        figure.group,
        figure.label,
        before,
        after,
        _difference(change),
        CHANGE_MARKS.get(change.mark, change.mark.replace(" ", "\N{NO-BREAK SPACE}")),
    )


def _difference(change: Change) -> str:
    then, now = change.then, change.now
    if then == now or not (is_number(then) and is_number(now)):
        return ""
    relative = (now - then) / abs(then) if then and change.figure.proportional else 0.0
    share = f" ({relative:+.1%})" if abs(relative) >= 0.0005 else ""
    difference = number(now - then, change.figure.unit)
    return f"{'+' if now > then else ''}{difference}{share}"


def shown(side: Revision, key: str, value: Any, unit: str) -> str:
    """A figure as a table cell; a speed-up with its interval."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _speedup(side) if key == SPEEDUP.key else number(value, unit)


def _speedup(side: Revision) -> str:
    return interval(*(side.value("bench", f"speedup.{key}") for key in ("ratio", "low95", "high95")))


def _grouped(rows: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """The rows with the name of a group only in its first row."""
    out: list[Sequence[str]] = []
    group = ""
    for row in rows:
        out.append((f"**{row[0]}**" if row[0] != group else "", *row[1:]))
        group = row[0]
    return out


def _rules(rules: Sequence[Rule]) -> list[str]:
    """Every rule, failed ones first; if there are many, the others are collapsed."""
    order = (Outcome.FAILED, Outcome.PASSED, Outcome.NOT_APPLICABLE, Outcome.OFF)
    ranked = sorted(rules, key=lambda rule: order.index(rule.outcome))
    failed = [rule for rule in rules if rule.failed]
    applied = len(failed) + sum(rule.outcome is Outcome.PASSED for rule in rules)
    if not applied:
        return ["**No rule applies**", *([_rule_table(ranked)] if ranked else [])]
    hold = "The only rule holds" if applied == 1 else f"All {applied} rules hold"
    summary = f"{len(failed)} of {plural(applied, 'rule')} failed" if failed else hold
    if len(rules) <= ROWS_SHOWN:
        return [f"**{summary}**", _rule_table(ranked)]
    rest = ranked[len(failed) :]
    opened = [_rule_table(ranked[: len(failed)])] if failed else []
    return [
        f"**{summary}**",
        *opened,
        collapsed(plural(len(rest), "rule" if not failed else "other rule"), _rule_table(rest)),
    ]


def _rule_table(rules: Sequence[Rule]) -> str:
    with_output = any(rule.output for rule in rules)
    rows = []
    for rule in rules:
        named = rule.sample is None or re.search(rf"\b{rule.sample}\b", rule.message)
        message = [*([] if named else [f"sample {rule.sample}"]), *([escape(rule.message)] if rule.message else [])]
        output = [code(rule.output) if rule.output else ""] if with_output else []
        figures = [number(figure) for figure in (rule.value, rule.limit, rule.margin)]
        rows.append((MARKS[rule.outcome], code(rule.name), *output, *figures, ": ".join(message)))
    return table(("", "rule", *(["output"] if with_output else []), "value", "limit", "margin", ""), rows)


def _params(base: Revision, head: Revision) -> list[str]:
    keys = sorted(key for key in {*head.params, *base.params} if head.params.get(key) != base.params.get(key))
    rows = [(code(key), _param(base, key), _param(head, key)) for key in keys]
    if not rows:
        return ["**Params**: no change."]
    shown = table(("key", "base", "this"), rows)
    return ["**Params**", shown] if len(rows) <= ROWS_SHOWN else [collapsed(f"{len(rows)} params differ", shown)]


def _param(side: Revision, key: str) -> str:
    return code(setting(side.params[key])) if key in side.params else UNKNOWN
