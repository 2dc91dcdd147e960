"""The report as Markdown: verdict, rules, machine, what changed, and the rest folded away."""

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from stages.common.base.params import Params
from stages.common.rules import Evidence, Outcome, Verdict, judge
from stages.report.figures import FIGURES, Figure
from stages.report.revision import Revision, Tree

MARKS = {Outcome.PASSED: "✅", Outcome.FAILED: "❌", Outcome.OFF: "off", Outcome.MOOT: "–"}

SMALLEST_CHANGE = 0.001
"""A change below a tenth of a percent is none: the rows below fold away."""


def report(here: Revision, base: Revision | None, limits: Params) -> str:
    """The whole report.

    Args:
        here: the workspace.
        base: what to compare with, or None.
        limits: for the rules.
    """
    verdicts = judge(Evidence(*(here.metrics[stage] for stage in ("quantize", "parity", "bench"))), limits.gate)
    parts = [_verdict(here, verdicts), _rules(verdicts), _judged(here), *_machine(here, base)]
    parts += [_figures(here)] if base is None else [*_changes(here, base), *_params(here, base)]
    parts.append(f"<sub>{here.name}{f' against {base.name}' if base else ''}</sub>")
    return "\n\n".join(parts)


def _verdict(here: Revision, verdicts: Sequence[Verdict]) -> str:
    failed = [each for each in verdicts if each.outcome is Outcome.FAILED]
    deploy, reason = (here.metrics["bench"].get(key) for key in ("deploy", "reason"))
    if failed:
        return (
            f"## ❌ The gate is shut: {', '.join(each.rule for each in failed)}\n\n"
            + "\n".join(f"- {each.sentence}" for each in failed)
            + f"\n\nDeploy {deploy}: {reason}"
        )
    return f"## ✅ Deploy {deploy}\n\n{reason}"


def _rules(verdicts: Sequence[Verdict]) -> str:
    rows = [(MARKS[each.outcome], each.rule, each.value, each.limit) for each in verdicts]
    return _table(("", "rule", "value", "limit"), rows)


def _judged(here: Revision) -> str:
    judged = here.metrics["parity"].get("judged", {})
    return (
        f"Parity is judged on {judged.get('samples')} samples, at batch {judged.get('batch')}, on {judged.get('isa')}."
    )


def _machine(here: Revision, base: Revision | None) -> list[str]:
    lines = [f"Timed on {_host(here)}."]
    if base and _another_machine(here, base):
        lines.append(
            f"> ⚠️ The base was timed on another machine, {_host(base)}. "
            "Milliseconds and memory are not compared; each speed-up is of one run."
        )
    return lines


def _host(side: Revision) -> str:
    host = side.metrics["host"]
    cpu = host.get("cpu", {})
    return (
        f"{cpu.get('model')}, {cpu.get('isa')}, {cpu.get('cores')} cores, ONNX Runtime {host.get('onnxruntime')} "
        f"(machine `{host.get('machine_id')}`)"
    )


def _another_machine(here: Revision, base: Revision) -> bool:
    ids = [side.metrics["host"].get("machine_id") for side in (here, base)]
    return ids[1] is not None and ids[0] != ids[1]


def _changes(here: Revision, base: Revision) -> list[str]:
    rows = [_row(figure, here, base) for figure in FIGURES]
    changed = [row for row, is_change in rows if is_change]
    same = [row for row, is_change in rows if not is_change]
    header = ("figure", "base", "here", "change", "")
    parts = [_table(header, changed) if changed else "No figure changed."]
    if same:
        parts.append(
            f"<details><summary>{len(same)} figures unchanged</summary>\n\n{_table(header, same)}\n\n</details>"
        )
    return parts


def _row(figure: Figure, here: Revision, base: Revision) -> tuple[tuple[str, ...], bool]:
    now, then = figure.of(here.metrics), figure.of(base.metrics)
    if figure.machine_bound and _another_machine(here, base):
        return (figure.label, "another machine", _shown(now), "", ""), False
    if not _number(now) or not _number(then):
        return (figure.label, _shown(then), _shown(now), "", ""), now != then
    share = (now - then) / abs(then) if then else None
    moved = now != then and (share is None or abs(share) >= SMALLEST_CHANGE)
    change = f"{now - then:+.4g}" + ("" if share is None else f" ({share:+.1%})") if moved else ""
    better = {"lower": now < then, "higher": now > then}.get(figure.better)
    mark = "" if not moved or better is None else ("better" if better else "worse")
    return (figure.label, _shown(then), _shown(now), change, mark), moved


def _figures(here: Revision) -> str:
    return _table(("figure", "value"), [(figure.label, _shown(figure.of(here.metrics))) for figure in FIGURES])


def _params(here: Revision, base: Revision) -> list[str]:
    keys = sorted({*here.params, *base.params})
    rows = [(f"`{key}`", _param(base.params, key), _param(here.params, key)) for key in keys]
    changed = [row for row in rows if row[1] != row[2]]
    return ["**Params**\n\n" + _table(("key", "base", "here"), changed)] if changed else []


def _param(params: Tree, key: str) -> str:
    return f"`{params[key]}`" if key in params else ""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text: str = tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)
    return text
