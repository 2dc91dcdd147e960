"""The reports of several models in one repository: a dvc.yaml may run the pipeline in a folder for each."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from stages.common.base import paths, pipeline
from stages.common.base.errors import StageError
from stages.report import screen, stage
from stages.report.stage import Report
from stages.report.text import UNKNOWN, code, number, table


def reports(base: str | None) -> dict[str, Report]:
    """The report of the working directory under an empty name, or, where it has no metrics, those of its dvc.yaml.

    Raises:
        StageError: metrics are missing, or git does not know the base.
    """
    gates = [stage for stage in pipeline.stages_of(Path(pipeline.DVC_YAML)) if stage.room == "gate"]
    if paths.METRICS.exists() or not gates or all(gate.folder == Path.cwd() for gate in gates):
        return {"": stage.run(base)}
    read = {}
    for gate in gates:
        name = gate.folder.relative_to(Path.cwd()).as_posix()
        with contextlib.chdir(gate.folder):
            try:
                read[name] = stage.run(base)
            except StageError as error:
                raise StageError(f"{name}: {error}") from error
    return read


def render(name: str, report: Report, pictures: str) -> str:
    """A report below the name of its model, where there is one."""
    text = screen.render(report, pictures)
    return f"# {code(name)}\n\n{text}" if name else text


def table_of(several: Mapping[str, Report]) -> str:
    """A line for each model: what to deploy, and the headlines."""
    header = ("model", "verdict", "times smaller", "speed-up (95 % interval)", "largest difference")
    rows = []
    for name, report in several.items():
        head = report.head
        times, speedup, difference = (
            head.value(*key)
            for key in (("quantize", "size.times_smaller"), ("bench", "speedup.ratio"), ("parity", "diff.max_abs"))
        )
        low, high = (head.value("bench", f"speedup.{end}95") for end in ("low", "high"))
        verdict = screen.verdict(head).splitlines()[0].removeprefix("## ")
        interval = UNKNOWN if speedup is None else f"{speedup:.3g} ({low:.3g} to {high:.3g})"
        rows.append((code(name), verdict, number(times), interval, number(difference)))
    return table(header, rows)
