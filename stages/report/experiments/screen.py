"""A sweep as Markdown: the best experiment, a table of all, those timed on other machines, and those that failed."""

import math
from collections.abc import Mapping, Sequence

from stages.common.rule import failures
from stages.report.evidence import machine
from stages.report.experiments.ranking import Row, best, differing_params
from stages.report.experiments.reading import BASELINE, Sweep
from stages.report.revision import Tree
from stages.report.text import UNKNOWN, block, code, escape, interval, number, plural, setting, table


def render(sweep: Sweep, machines: Mapping[str, Sequence[Row]], pictures: str = "") -> str:
    """The whole text, with rows by machine, best first, and `pictures` (HTML) below the first table."""
    main, *others = list(machines.values()) or [[]]
    finished = [row.revision.params for rows in machines.values() for row in rows]
    keys = differing_params(finished)
    parts = [_conclusion(sweep, main)]
    if main:
        parts += [_rows(main, keys), *([pictures] if pictures else []), _legend(main)]
    for rows in others:
        where = machine(rows[0].revision)
        parts += [f"**Timed on another machine**, {where}: not ranked with the others.", _rows(rows, keys)]
    if sweep.failed:
        keys = differing_params([*finished, *(row.params for row in sweep.failed)])
        header = ("failed", "why", *map(code, keys))
        lines = [
            (f"❌\N{NO-BREAK SPACE}{code(row.name)}", escape(row.reason), *(_param(row.params, key) for key in keys))
            for row in sweep.failed
        ]
        parts.append(table(header, lines))
    return "\n\n".join(parts)


def _conclusion(sweep: Sweep, rows: Sequence[Row]) -> str:
    count = sum(row.name != BASELINE for row in rows)
    waiting = f" {plural(sweep.waiting, 'experiment')} still queued or running." if sweep.waiting else ""
    failed = f" {plural(len(sweep.failed), 'experiment')} failed." if sweep.failed else ""
    first = best(rows)
    if first is None:
        verdict = "## ❌ No experiment passes the gate with an INT8 model"
        return f"{verdict}\n\n{plural(count, 'experiment')} of {code(sweep.commit)} finished.{failed}{waiting}"
    if first.name == BASELINE:
        verdict, command = "## ✅ Keep the committed params: no experiment is better", []
    else:
        verdict, command = f"## ✅ Best: {code(first.name)}", ["", block(f"dvc exp apply {first.name}")]
    figures = (
        f"{number(first.size, 'MB')}, speed-up {interval(*first.speedup)}, largest difference {number(first.error)}"
    )
    sentence = f"{figures}. {plural(count, 'experiment')} of {code(sweep.commit)} finished.{failed}{waiting}"
    return "\n".join([verdict, "", sentence, *command])


def _rows(rows: Sequence[Row], keys: Sequence[str]) -> str:
    header = ("", "experiment", "verdict", "INT8 file", "speed-up (95 %)", "error", "margin", *map(code, keys))
    return table(header, [_row(row, keys) for row in rows])


def _row(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    name = f"_{BASELINE}_" if row.name == BASELINE else code(row.name)
    share, rule = row.margin
    margin = UNKNOWN if math.isnan(share) else f"{share:+.0%} {code(rule)}"
    figures = number(row.size, "MB"), interval(*row.speedup), number(row.error), margin
    params = (_param(row.revision.params, key) for key in keys)
    return ("★" if row.front else "", name, _verdict(row), *figures, *params)


def _verdict(row: Row) -> str:
    if row.open:
        return f"✅\N{NO-BREAK SPACE}{'INT8' if row.deploy == 'int8' else 'fp32'}"
    failed = ", ".join(code(rule.name) for rule in failures(row.revision.rules("gate")))
    return f"❌\N{NO-BREAK SPACE}{failed or 'closed'}"


def _param(params: Tree, key: str) -> str:
    return escape(setting(params[key])) if key in params else UNKNOWN


def _legend(rows: Sequence[Row]) -> str:
    return (
        f"★ No other row is smaller, more exact and faster at once. Timed on {machine(rows[0].revision)}. "
        "Error: largest absolute difference from fp32. Margin: of the parity rule closest to its limit."
    )
