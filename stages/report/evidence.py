"""The evidence in a report: conditions, batch sizes, quantized nodes, worst samples, notes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from stages.report.changes import BaseComparison, Mark, speedup_mark
from stages.report.revision import DETAILS, SPEEDUP, Revision, flat, lookup
from stages.report.text import UNKNOWN, bullets, code, collapsed, escape, interval, number, plural, table

NAMES_SHOWN = 5
WORST_SHOWN = 10


def conditions(head: Revision) -> str:
    """How answers were judged and how models were timed, in a sentence each."""
    parity, bench = head.details["parity"], head.details["bench"]
    samples = lookup(parity, "judged.samples") or head.value("parity", "judged.samples")
    lines = []
    if samples is not None:
        batch, isa = (lookup(parity, f"judged.{key}") for key in ("batch", "isa"))
        lines.append(f"Answers judged on {plural(samples, 'sample')}{_at(batch)}{f' on {escape(isa)}' if isa else ''}.")
    batch, threads = (lookup(bench, f"measured.{key}") for key in ("batch", "threads"))
    with_threads = f" with {plural(threads, 'thread')}" if threads else ""
    lines.append(f"Timed{_at(batch)}{with_threads} on {machine(head)}.")
    return " ".join(lines)


def _at(batch: int | None) -> str:
    return "" if batch is None else f" in batches of {batch}"


def machine(side: Revision) -> str:
    """CPU, instruction set, cores and ONNX Runtime of a revision."""
    model, isa, cores = (side.value("host", f"cpu.{key}") for key in ("model", "isa", "cores"))
    parts = [escape(part) for part in (model, isa) if part]
    parts += [plural(cores, "core")] if isinstance(cores, int) else []
    runtime = side.value("host", "onnxruntime")
    parts += [f"ONNX Runtime {escape(runtime)}"] if runtime else []
    identity = f"machine {code(side.machine_id)}" if side.machine_id else "an unknown machine"
    return f"{', '.join(parts)} ({identity})" if parts else identity


def batches(head: Revision, comparison: BaseComparison | None) -> list[str]:
    """Every batch size that bench measured, beside the base's figures if both were timed under the same conditions."""
    timed = {row.get("batch"): row for row in head.detail("bench", "batches") or [] if isinstance(row, Mapping)}
    if not timed:
        return []
    before: dict[Any, Mapping[str, Any]] = {}
    if comparison and not comparison.timing:
        before = {row.get("batch"): row for row in comparison.base.detail("bench", "batches") or []}
    same = comparison is not None and {"fp32", "int8"} <= set(comparison.same_models)
    rows = []
    for batch, row in timed.items():
        if "not_measured" in row:
            rows.append(
                (number(batch), UNKNOWN, UNKNOWN, escape(row["not_measured"]), UNKNOWN, *(("", "") if before else ()))
            )
            continue
        base = [_speedup(before.get(batch, {})), _batch_mark(before.get(batch, {}), row, same)] if before else []
        times = [number(row.get(f"{model}_p50_ms"), "ms") for model in ("fp32", "int8")]
        rows.append((number(batch), *times, _speedup(row), escape(row.get("verdict") or UNKNOWN), *base))
    header = ("batch", "fp32", "INT8", "speed-up (95 % interval)", "verdict", *(("base", "") if before else ()))
    counts = {mark: sum(row[-1] == mark for row in rows) for mark in (Mark.WORSE, Mark.BETTER)}
    news = ", ".join(f"{count} {mark}" for mark, count in counts.items() if count)
    return [collapsed(f"Speed at {plural(len(rows), 'batch size')}{f': {news}' if news else ''}", table(header, rows))]


def _speedup(row: Mapping[str, Any]) -> str:
    return interval(*(row.get(key) for key in ("speedup", "low95", "high95")))


def _batch_mark(before: Mapping[str, Any], row: Mapping[str, Any], same: bool) -> str:
    ends = [[side.get(end) for end in ("low95", "high95")] for side in (before, row)]
    if None in ends[0] + ends[1]:
        return ""
    return str(Mark.SAME_MODEL if same else speedup_mark(ends[0], ends[1]))  # type: ignore[arg-type]


def quantization(head: Revision) -> list[str]:
    """Which nodes were quantized and how, and which stayed float and why."""
    if not head.nodes:
        return []
    quantized: dict[tuple[str, str], list[Mapping[str, str]]] = defaultdict(list)
    kept: dict[tuple[str, str], list[Mapping[str, str]]] = defaultdict(list)
    for node in head.nodes:
        group, why = (quantized, "how") if node.get("quantized") == "true" else (kept, "reason")
        group[node.get("op_type", ""), node.get(why, "")].append(node)
    parts = []
    if quantized:
        rows = []
        for (op, how), nodes in quantized.items():
            noise = [float(node["weight_sqnr_db"]) for node in nodes if node.get("weight_sqnr_db")]
            rows.append((escape(op), escape(how), *_nodes(nodes), number(min(noise, default=None), "dB")))
        header = ("operator", "how", "nodes", "weights", "names", "lowest weight SQNR")
        parts += ["**Quantized**", table(header, rows)]
    if kept:
        floats = [(escape(op), escape(why), *_nodes(nodes)) for (op, why), nodes in kept.items()]
        parts += ["**Kept in float**", table(("operator", "why", "nodes", "weights", "names"), floats)]
    steps = [*sentences(head.detail("export", "clean")), *sentences(head.detail("quantize", "steps"))]
    parts += ["**Steps**", bullets(steps)] if steps else []
    counts = (sum(map(len, group.values())) for group in (quantized, kept))
    return [collapsed("What was quantized: {} INT8, {} kept in float".format(*counts), *parts)]


def _nodes(nodes: Sequence[Mapping[str, str]]) -> tuple[str, str, str]:
    names = [code(node.get("node")) for node in nodes[:NAMES_SHOWN]]
    more = [f"and {len(nodes) - NAMES_SHOWN} more"] if len(nodes) > NAMES_SHOWN else []
    weights = sum(float(node.get("weight_bytes") or 0) for node in nodes)
    size = number(weights / 1e6, "MB") if weights >= 1e5 else number(weights / 1e3, "kB")
    return number(len(nodes)), size, ", ".join([*names, *more])


def frontier(head: Revision) -> list[str]:
    """The models that method auto built, and the one that it chose."""
    if not head.frontier:
        return []
    rows = []
    for row in head.frontier:
        outcome = "passes" if row["passes"] == "true" else "fails"
        size, strain = figure(row, "mb"), figure(row, "strain")
        rows.append(
            (
                "✅\N{NO-BREAK SPACE}chosen" if row["chosen"] == "true" else outcome,
                f"{escape(row['candidate'])}, {escape(row['origin'])}",
                escape(row["nodes_quantized"]),
                number(size, "MB"),
                interval(*(figure(row, key) for key in SPEEDUP)),
                UNKNOWN if strain is None else f"{strain:.0%}",
            )
        )
    passed = sum(row["passes"] == "true" for row in head.frontier)
    header = ("", "model", "INT8 nodes", "INT8 file", "speed-up (95 % interval)", "tolerance used")
    meaning = (
        "Judged on the search samples, where the rule nearest to its limit must leave a margin. "
        "The models that pass are timed against each other."
    )
    summary = f"Method auto built {plural(len(rows), 'model')}, {passed} within the tolerances"
    return [collapsed(summary, meaning, table(header, rows))]


def figure(row: Mapping[str, str], key: str) -> float | None:
    """A number in a CSV file; None for an empty cell."""
    return float(row[key]) if row.get(key) else None


def worst_samples(head: Revision) -> list[str]:
    keys = ("sample", "output", "position", "fp32", "int8", "abs_error")
    rows = [
        [(code if key == "output" else escape)(row.get(key, "")) for key in keys] for row in head.worst[:WORST_SHOWN]
    ]
    header = ("sample", "output", "position", "fp32", "INT8", "difference")
    return [collapsed(f"{plural(len(rows), 'sample')} that moved most", table(header, rows))] if rows else []


def notes(head: Revision) -> list[str]:
    """Notes and warnings of all stages, and why figures are null."""
    lines = []
    for stage in DETAILS:
        for key in ("warnings", "notes"):
            lines += [f"{stage}: {sentence}" for sentence in sentences(head.detail(stage, key))]
        for key, reason in (head.details[stage].get("null_reasons") or {}).items():
            if key in flat(head.metrics[stage]):
                lines.append(f"{stage}: {code(key)} was not measured: {escape(reason)}")
    if finding := head.detail("bench", "noise.finding"):
        lines.append(f"bench: while the models were timed, {escape(finding)}.")
    return [collapsed(plural(len(lines), "note"), bullets(lines))] if lines else []


def sentences(listed: Any) -> list[str]:
    """A list of sentences, or of records shown as `key: value`, escaped."""
    return [
        ", ".join(f"{escape(key)}: {escape(value)}" for key, value in entry.items() if value is not None)
        if isinstance(entry, Mapping)
        else escape(entry)
        for entry in listed or []
    ]
