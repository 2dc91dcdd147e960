"""The table of a sweep: the best row first, failed rows marked, rows of another machine in a table of their own."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.common.rule import Rule
from stages.report.experiments import pictures, ranking, reading, screen
from stages.report.experiments.ranking import Row, dominates, smallest_margin
from stages.report.experiments.reading import Failed, Finished, Sweep, last_line
from stages.report.revision import at
from tests.report.test_workflows import PATH, git
from tests.report.trees import DETAILS, METRICS, ROOT, Repository, changed, row, rule

CLOSED: dict[str, Any] = {"gate__open": False, "gate__deploy": "fp32", "parity__passed": False}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    return repository


def experiment(
    repository: Repository,
    name: str,
    speedup: tuple[float, float, float] = (2.0, 1.9, 2.1),
    details: dict[str, Any] | None = None,
    params: str = "quantize: {weight_type: QInt8}\n",
    **metrics: Any,
) -> Finished:
    """Commit to a branch what a run with these figures would commit."""
    ratio, low, high = speedup
    tree = {"ratio": ratio, "low95": low, "high95": high, "verdict": "faster"}
    repository.git("checkout", "-q", "-B", name, "main")
    repository.write(changed(METRICS, bench__speedup=tree, **metrics), changed(DETAILS, **(details or {})), params)
    repository.commit()
    return Finished(name, at(name))


def printed(finished: list[Finished], failed: list[Failed] | None = None, waiting: int = 0) -> str:
    sweep = Sweep("abc1234", finished, failed or [], waiting)
    machines = ranking.rank(sweep)
    return screen.render(sweep, machines)


def names(text: str) -> list[str]:
    """The experiments in the order of their rows."""
    cells = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("|")]
    return [cell.strip("`") for cell in cells if cell.startswith("`")]


def test_the_best_comes_first_and_the_last_word_is_the_command(repository: Repository) -> None:
    closed = experiment(repository, "closed", (9.0, 8.9, 9.1), **CLOSED)
    slow = experiment(repository, "slow", (1.5, 1.4, 1.6))
    wide = experiment(repository, "wide", (3.0, 1.0, 5.0))
    fast = experiment(repository, "fast", (2.5, 2.4, 2.6), params="quantize: {weight_type: QUInt8}\n")
    text = printed([closed, slow, wide, fast])
    assert text.startswith("## ✅ Best: `fast`\n")
    assert "```\ndvc exp apply fast\n```" in text
    assert names(text) == ["fast", "slow", "wide", "closed"]
    assert row(text, "`fast`")[1:] == [
        "✅\N{NO-BREAK SPACE}INT8",
        "1 MB",
        "2.5× (2.4 to 2.6)",
        "0.02",
        "+50% `abs_tol`",
        "QUInt8",
    ]
    assert "4 experiments of `abc1234` finished." in text


def test_a_closed_row_names_its_rules_and_is_never_applied(repository: Repository) -> None:
    rules = [rule("parity", "failed", "passed", None, "failed"), rule("min_speedup", 2.0, 0.97, 1.03, "passed")]
    text = printed([experiment(repository, "closed", details={"gate__rules": rules}, **CLOSED)])
    assert text.startswith("## ❌ No experiment passes the gate with an INT8 model")
    assert "dvc exp apply" not in text
    assert row(text, "`closed`")[1] == "❌\N{NO-BREAK SPACE}`parity`"
    assert "1 experiment of" in text


def test_the_front_is_marked(repository: Repository) -> None:
    fast = experiment(repository, "fast", (3.0, 2.9, 3.1), parity__diff__max_abs=0.03)
    exact = experiment(repository, "exact", (2.0, 1.9, 2.1), parity__diff__max_abs=0.01)
    beaten = experiment(repository, "beaten", (2.0, 1.9, 2.1), parity__diff__max_abs=0.035)
    marks = {row.name: row.front for row in ranking.rank(Sweep("x", [fast, exact, beaten], [], 0))["a" * 12]}
    assert marks == {"fast": True, "exact": True, "beaten": False}


def test_failed_rows_show_why_and_no_figures(repository: Repository) -> None:
    failed = [Failed("broken", {"quantize.weight_type": "QInt3"}, "Error: weight_type is 'QInt3'.")]
    text = printed([experiment(repository, "good")], failed, waiting=2)
    assert row(text, "❌\N{NO-BREAK SPACE}`broken`") == [
        "❌\N{NO-BREAK SPACE}`broken`",
        "Error: weight_type is 'QInt3'.",
        "QInt3",
    ]
    assert "`quantize.weight_type`" not in text.split("★")[0]
    assert "1 experiment failed. 2 experiments still queued or running." in text


def test_rows_of_another_machine_are_not_ranked_with_the_others(repository: Repository) -> None:
    here = [experiment(repository, name) for name in ("one", "two")]
    there = experiment(
        repository,
        "there",
        (99.0, 98.0, 100.0),
        details={"bench__measured__machine_id": "b" * 12},
        host={"machine_id": "b" * 12, "cpu": {"model": "CPU B", "isa": "amx", "cores": 1}},
    )
    text = printed([there, *here])
    assert text.startswith("## ✅ Best: `one`")
    first, second = text.split("**Timed on another machine**, CPU B, amx, 1 core (machine `bbbbbbbbbbbb`)")
    assert names(first) == ["one", "two"]
    assert names(second) == ["there"]


def test_the_baseline_may_be_the_best(repository: Repository) -> None:
    baseline = Finished(reading.BASELINE, at("main"))
    text = printed([baseline, experiment(repository, "slow", (1.5, 1.4, 1.6))])
    assert text.startswith("## ✅ Keep the committed params: no experiment is better\n")
    assert "dvc exp apply" not in text
    assert row(text, "_baseline_")[1] == "✅\N{NO-BREAK SPACE}INT8"


def side(size: float, error: float, speedup: tuple[float, float, float]) -> Row:
    revision: Any = SimpleNamespace()
    return Row("x", revision, True, "int8", size, error, speedup, (0.5, "abs_tol"))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (side(1, 0.1, (2, 1.9, 2.1)), side(2, 0.1, (2, 1.9, 2.1)), True),
        (side(1, 0.1, (2, 1.9, 2.1)), side(1, 0.1, (2.05, 1.95, 2.15)), False),
        (side(1, 0.1, (3, 2.9, 3.1)), side(1, 0.1, (2, 1.9, 2.1)), True),
        (side(1, 0.2, (3, 2.9, 3.1)), side(1, 0.1, (2, 1.9, 2.1)), False),
        (side(1, 0.1, (2, 1.9, 2.1)), side(2, 0.1, (3, 2.9, 3.1)), False),
        (side(1, float("nan"), (2, 1.9, 2.1)), side(2, 0.1, (2, 1.9, 2.1)), False),
    ],
)
def test_one_row_beats_another(one: Row, other: Row, expected: bool) -> None:
    assert dominates(one, other) is expected
    assert not (dominates(one, other) and dominates(other, one))


def test_the_margin_is_that_of_the_rule_closest_to_its_limit() -> None:
    trees = [
        rule("abs_tol", 0.02, 0.04, 0.02, "passed"),
        rule("mean_tol", 0.012, 0.01, -0.002, "failed"),
        rule("min_cosine", None, 0.9, None, "not applicable"),
        rule("max_flip_rate", None, None, None, "off"),
        rule("nonfinite", 0, 0, 0, "passed"),
    ]
    share, name = smallest_margin([Rule.from_json(tree) for tree in trees])
    assert (round(share, 6), name) == (-0.2, "mean_tol")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("Running\nError: no such node.\nERROR: failed to reproduce 'quantize'\n", "Error: no such node."),
        ("ERROR: failed to load dvc.yaml\n\n", "ERROR: failed to load dvc.yaml"),
        ("", "Its output is empty."),
    ],
)
def test_the_last_line_of_a_failed_run(tmp_path: Path, log: str, expected: str) -> None:
    (tmp_path / "log").write_text(log)
    assert last_line(str(tmp_path / "log")) == expected


def test_a_run_without_output_is_said() -> None:
    assert last_line(None).startswith("It failed before a stage started: dvc queue logs, with its name, says where")


def test_above_the_folders_of_models_it_names_them(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to say that no experiment passes the gate."""
    (repository.root / "int8").mkdir()
    (repository.root / "metrics").rename(repository.root / "int8/metrics")
    gate = "stages: {int8_gate: {matrix: {model: [a, b]}, wdir: 'int8/${item.model}', cmd: python -m stages.gate}}\n"
    (repository.root / "dvc.yaml").write_text(gate)
    repository.commit()
    run = SimpleNamespace(name="one", executor=None, revs=[SimpleNamespace(rev="HEAD", name="", error=None)])
    monkeypatch.setattr(reading, "_baseline", lambda: SimpleNamespace(rev="0" * 40, experiments=[run]))
    assert repository.report("--experiments").stderr == (
        "Error: No experiment has metrics/gate.json in this folder. "
        "Run this beside the params.yaml of the pipeline, in int8/a or int8/b.\n"
    )
    monkeypatch.setattr(repository, "root", repository.root / "int8")
    assert repository.report("--experiments").stdout.startswith("## ✅")


def test_pictures_name_every_experiment_on_hover(repository: Repository) -> None:
    rows = [
        experiment(repository, "one", params="quantize: {weight_type: QInt8, per_channel: true}\n"),
        experiment(repository, "two", (3.0, 2.9, 3.1), params="quantize: {weight_type: QUInt8, per_channel: null}\n"),
        experiment(repository, "closed", **CLOSED),
    ]
    sweep = Sweep("x", rows, [], 0)
    machines = ranking.rank(sweep)
    keys = ranking.differing_params([row.revision.params for row in machines["a" * 12]])
    assert keys == ["quantize.per_channel", "quantize.weight_type"]
    drawn = {picture.name: picture.svg() for picture in pictures.pictures(machines["a" * 12])}
    assert list(drawn) == ["pareto", "parallel"]
    for name in ("one", "two", "closed"):
        assert f"{name}: speed-up" in drawn["pareto"]
        assert f"{name}: speed-up" in drawn["parallel"]
    assert ">QUInt8<" in drawn["parallel"]
    assert ">null<" in drawn["parallel"]
    assert pictures.pictures(machines["a" * 12][:1]) == []


STAGE = """
import json, sys
from pathlib import Path
import yaml
from tests.report.trees import DETAILS, METRICS, changed
params = yaml.safe_load(Path("params.yaml").read_text())
ratio = params["ratio"]
if ratio < 0:
    sys.exit("Error: ratio is negative.")
speedup = {"ratio": ratio, "low95": ratio - 0.1, "high95": ratio + 0.1, "verdict": "faster"}
metrics = changed(METRICS, bench__speedup=speedup)
for folder, trees in (("metrics", metrics), ("metrics/details", DETAILS)):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, tree in trees.items():
        Path(folder, name + ".json").write_text(json.dumps(tree))
"""


@pytest.mark.slow
def test_a_real_sweep_through_dvc(tmp_path: Path) -> None:
    """Queued experiments of a DVC project, one of which fails."""
    environment = {"PATH": PATH, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    repository = Repository(tmp_path)
    git(tmp_path, "config", "user.name", "t")
    git(tmp_path, "config", "user.email", "t@example.org")
    assert run("dvc", "init", "-q").returncode == 0
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    outs = [f"metrics/{stage}.json" for stage in METRICS] + [f"metrics/details/{stage}.json" for stage in DETAILS]
    lines = "".join(f"      - {out}: {{cache: false}}\n" for out in outs)
    (tmp_path / "dvc.yaml").write_text(
        f"stages:\n  all:\n    cmd: python stage.py\n    deps: [stage.py]\n    params: [ratio]\n    outs:\n{lines}"
    )
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "params.yaml").write_text("ratio: 1.5\n")
    assert run("dvc", "repro", "-q").returncode == 0
    repository.commit()
    assert repository.report("--experiments").stderr.startswith("Error: This commit has no experiments. Run some, e.g.")
    assert run("dvc", "exp", "run", "--queue", "-n", "try", "-S", "ratio=2.5,-1").returncode == 0
    assert "2 experiments still queued or running." in repository.report("--experiments").stdout
    run("dvc", "exp", "run", "--run-all")
    done = repository.report("--experiments")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## ✅ Best: `try-1`\n")
    failed = "❌\N{NO-BREAK SPACE}`try-2`"
    assert row(done.stdout, failed) == [failed, "Error: ratio is negative.", "-1"]
    assert row(done.stdout, "`try-1`")[3] == "2.5× (2.4 to 2.6)"
    assert row(done.stdout, "_baseline_")[-1] == "1.5"
    both = repository.report("--experiments", "--html", "sweep.html", "--pictures", "pictures").stdout
    assert "pictures/pareto-light.png" in both
    assert "try-1: speed-up 2.5" in (tmp_path / "sweep.html").read_text()
