"""Adding the pipeline to a repository: its own stages, params and lock stay as they were."""

import json
import re
import shutil
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from stages.common.base import params, yaml12
from stages.common.base.errors import StageError
from stages.init import merge, screen, stage
from stages.init.__main__ import requirement
from tests.pipeline.conftest import Project, clone, environment, shorten_launches

ROOT = Path(__file__).resolve().parents[2]

DVC_YAML = """\
# The team's pipeline.
stages:
    export:
        cmd: python prepare.py  # quick
        deps: [prepare.py]
        outs:
            - data.txt
    train:
        cmd: python train.py
        deps:
            - data.txt
        params:
            - train
            - export
        metrics:
            - score.json:
                cache: false
# The end of the stages.
metrics:
    - score.json
"""

PARAMS = """\
# How we train.
train:
  lr: 0.1  # tuned
# And what the dashboard gets.
export:
  format: csv  # not Excel
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository with two stages that ran, commented params and a remote."""
    folder = tmp_path_factory.mktemp("template")
    project = Project(folder / "team", environment(folder))
    project.root.mkdir()
    for name, text in {
        "dvc.yaml": DVC_YAML,
        "params.yaml": PARAMS,
        "prepare.py": "open('data.txt', 'w').write('1')\n",
        "train.py": "open('score.json', 'w').write('{\"loss\": 1}')\n",
        ".gitignore": "__pycache__/\n",
    }.items():
        (project.root / name).write_text(text)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("dvc", "remote", "add", "-d", "store", str(folder / "store"))
    project.run("dvc", "repro")
    project.commit("The team's work")
    return project


@pytest.fixture
def team(template: Project, tmp_path: Path) -> Project:
    """A copy of `template` that a test may change."""
    shutil.copytree(template.root, tmp_path / "team", symlinks=True)
    return Project(tmp_path / "team", template.env)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder that init accepts as a DVC repository, without stages or params."""
    root = tmp_path / "repository"
    for name in (".dvc", ".git"):
        (root / name).mkdir(parents=True)
    return root


def deletions(project: Project) -> int:
    project.run("git", "add", "-A")
    lines = project.run("git", "diff", "--cached", "--numstat").stdout.splitlines()
    return sum(int(line.split("\t")[1]) for line in lines)


CODE = stage.Origin(ROOT)

JUDGED = ("export", "quantize", "parity", "bench")

MODEL = """\
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

WIDTH = {width}


def build():
    x = np.random.default_rng(WIDTH).normal(size=(400, 8)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    model = MLPClassifier((WIDTH,), max_iter=20, random_state=0) if WIDTH else LogisticRegression()
    return model.fit(x, y), x, y
"""


def small(folder: Path, at: Path, width: int, name: str = "small") -> None:
    """Replace the installed model by a small one (width 0: without a hidden layer), and shorten the benchmarks."""
    (folder / "models" / f"{name}.py").write_text(MODEL.format(width=width))
    knobs = at / "params.yaml"
    text = re.sub(r"(?m)^  source: .*", f"  source: models.{name}:build", knobs.read_text())
    text = text.replace("target_halfwidth: 0.02", "target_halfwidth: 0.5").replace("memory: true", "memory: false")
    text = text.replace("advice_seconds: 60", "advice_seconds:").replace("min_speedup: 0.97", "min_speedup:")
    text = text.replace("  max_seconds: 15\n", "  max_seconds: 0.1\n")
    knobs.write_text(re.sub(r"batch_sizes:(\n  - \d+)+", "batch_sizes: []", text))


@pytest.mark.slow
def test_in_a_folder_the_team_s_stages_stay_as_they_are_and_ours_run(team: Project) -> None:
    folder = team.root / "onnx"
    adoption = stage.run(CODE, folder)
    assert (adoption.taken, adoption.files["merged"]) == ("", [])
    assert deletions(team) == 0
    assert screen.render(stage.run(CODE, folder)).startswith("Nothing to do")
    small(folder, folder, 128)
    shorten_launches(folder)
    shown = team.run("dvc", "repro", "dvc.yaml", "onnx/dvc.yaml").stdout
    assert shown.count("didn't change, skipping") == 2
    assert "The gate is open: deploy int8" in shown
    assert "is not among the deps" not in shown
    assert "up to date" in team.run("dvc", "status", *(f"onnx/dvc.yaml:{room}" for room in JUDGED)).stdout


@pytest.mark.slow
def test_at_the_root_two_models_by_matrix_have_two_verdicts_and_one_report(team: Project) -> None:
    """The repository has a stage and a section `export`, so the pipeline gets a prefix and a folder of its own."""
    names = ("line", "strict")
    adoption = stage.run(CODE, team.root, models=names)
    page = screen.render(adoption)
    assert "dvc.yaml has stages.export already, so the pipeline is in int8/, and its stages are int8_export" in page
    assert "int8/line/params.yaml, int8/strict/params.yaml" in page
    assert "python -m stages.report, in int8/, shows all models" in page
    assert adoption.files["merged"] == ["dvc.yaml"]
    assert deletions(team) == 0
    assert screen.render(stage.run(CODE, team.root)).startswith("Nothing to do")
    for name, width in zip(names, (0, 128), strict=True):
        small(team.root / "int8", team.root / "int8" / name, width, name)
    shorten_launches(team.root / "int8")
    strict = team.root / "int8" / "strict"
    knobs = strict / "params.yaml"
    knobs.write_text(knobs.read_text().replace("abs_tol: 0.04", "abs_tol: 1e-9"))
    done = team.run("dvc", "repro", "--keep-going", check=False)
    assert done.returncode != 0
    assert done.stdout.count("didn't change, skipping") == 2
    assert done.stdout.count("The gate is open: deploy fp32") == 1
    assert "is not among the deps" not in done.stdout
    assert "The gate is closed (parity" in done.stderr
    report = Project(team.root / "int8", team.env).run("python", "-m", "stages.report").stdout
    table = [line for line in report.splitlines() if line.startswith("| `")][: len(names)]
    verdicts = ("✅ Deploy fp32", "❌ The gate is closed, deploy fp32")
    assert [verdict in line for verdict, line in zip(verdicts, table, strict=True)] == [True, True]
    assert [line for line in report.splitlines() if line.startswith("# ")] == [f"# `{name}`" for name in names]
    shown = team.run("dvc", "metrics", "show").stdout
    assert all(f"int8/{name}/metrics/gate.json" in shown for name in names)
    assert "up to date" in team.run("dvc", "status", *(f"int8_{room}" for room in JUDGED)).stdout
    # In the folder of a model, gate and report compare with the entries of that model in the dvc.lock above.
    knobs.write_text(knobs.read_text().replace("abs_tol: 1e-9", "abs_tol: 0.05"))
    inside = Project(strict, team.env | {"PYTHONPATH": ".."})
    assert "abs_tol was changed from 1e-09 to 0.05" in inside.run("python", "-m", "stages.gate", check=False).stderr
    report = inside.run("python", "-m", "stages.report", "--base", "HEAD").stdout
    assert "`parity.abs_tol` changed since these figures were measured" in report


@pytest.mark.slow
def test_a_repository_may_depend_on_the_wheel_in_place_of_a_copy(team: Project, tmp_path: Path) -> None:
    checkout, site = tmp_path / "checkout", tmp_path / "wheel"
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    clone(checkout).run("python", "-c", build)
    with zipfile.ZipFile(next(checkout.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    assert sorted(path.name.partition("-")[0] for path in site.iterdir()) == ["onnx_int8", "onnx_quantize_pipeline"]
    installed = Project(team.root, team.env | {"PYTHONPATH": str(site)})
    shown = installed.run("python", "-m", "onnx_int8", "init", ".").stdout
    assert "pip install -r int8/requirements-int8.txt" in shown
    assert deletions(team) == 0
    assert not (team.root / "int8" / "stages").exists()
    assert (team.root / "int8" / "requirements-int8.txt").read_text() == "onnx-quantize-pipeline==0.1.0\n"
    small(team.root / "int8", team.root / "int8", 32)
    assert "python -m onnx_int8.export" in installed.run("dvc", "repro", "int8_export").stdout
    assert "nodes" in installed.run("python", "-m", "onnx_int8", "inspect", "int8/artifacts/model.onnx").stdout
    missing = installed.run("python", "-m", "onnx_int8", "report", check=False).stderr
    assert "Run host first" in missing


def test_a_wheel_from_git_is_pinned_to_its_commit(tmp_path: Path) -> None:
    (tmp_path / "METADATA").write_text("Name: onnx-quantize-pipeline\nVersion: 1.2\n")
    installed = metadata.PathDistribution(tmp_path)
    assert requirement(installed) == "onnx-quantize-pipeline==1.2"
    url = {
        "url": "https://example.org/x.git",
        "vcs_info": {"vcs": "git", "commit_id": "abc", "requested_revision": "v1"},
    }
    (tmp_path / "direct_url.json").write_text(json.dumps(url))
    assert requirement(installed) == "onnx-quantize-pipeline @ git+https://example.org/x.git@abc"


def test_the_params_of_the_team_are_not_ours_to_check(tmp_path: Path) -> None:
    theirs = PARAMS.replace("export:", "dashboard:")
    text = merge.added(theirs, (ROOT / "params.yaml").read_text(), "params.yaml")
    assert text.startswith(theirs)
    file = tmp_path / "params.yaml"
    file.write_text(text)
    assert params.load(file) == params.load(ROOT / "params.yaml")


def test_both_files_are_joined_key_by_key() -> None:
    theirs = DVC_YAML.replace("export", "prepare")
    joined = merge.added(theirs, (ROOT / "dvc.yaml").read_text(), "dvc.yaml")
    tree, ours = yaml12.load(joined), yaml12.load((ROOT / "dvc.yaml").read_text())
    assert list(tree["stages"]) == ["prepare", "train", *ours["stages"]]
    assert tree["stages"]["quantize"] == ours["stages"]["quantize"]
    assert tree["metrics"] == ["score.json", *ours["metrics"]]
    assert tree["plots"] == ours["plots"]
    kept = iter(joined.splitlines())
    assert all(line in kept for line in theirs.splitlines())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("params.yaml", "export:\n  format: csv\n"),
        ("dvc.yaml", "stages:\n  export:\n    cmd: true\n"),
        ("dvc.yaml", "plots:\n  latency:\n    x: low\n"),
        ("models/net.py", ""),
    ],
)
def test_where_a_name_is_taken_ours_get_a_prefix_and_a_folder(empty: Path, name: str, text: str) -> None:
    (empty / name).parent.mkdir(exist_ok=True)
    (empty / name).write_text(text)
    adoption = stage.run(CODE, empty)
    assert name.split("/", maxsplit=1)[0] in adoption.taken
    tree = yaml12.load((empty / "dvc.yaml").read_text())
    assert {entry["wdir"] for room, entry in tree["stages"].items() if room != "export"} == {"int8"}
    assert (empty / name).read_text().startswith(text)
    assert screen.render(stage.run(CODE, empty / "int8")).startswith("Nothing to do")
    assert sorted(path.name for path in empty.iterdir() if path.name[0] != ".") == sorted(
        {"dvc.yaml", "int8", name.split("/", maxsplit=1)[0]}
    )


def test_the_package_leaves_the_folder_stages_to_the_repository(empty: Path) -> None:
    (empty / "stages").mkdir()
    assert stage.run(stage.Origin(ROOT, "onnx-quantize-pipeline==0.1.0"), empty).taken == ""
    assert list((empty / "stages").iterdir()) == []


def test_where_even_the_prefix_is_taken_nothing_is_written(empty: Path) -> None:
    text = "stages:\n  export:\n    cmd: true\n  int8_export:\n    cmd: true\n"
    (empty / "dvc.yaml").write_text(text)
    with pytest.raises(StageError, match=r"has stages\.int8_export already, .* Name one: init .*/int8"):
        stage.run(CODE, empty)
    assert sorted(path.name for path in empty.iterdir()) == [".dvc", ".git", "dvc.yaml"]
    stage.run(CODE, empty / "int8")
    assert (empty / "dvc.yaml").read_text() == text


def test_an_upgrade_keeps_what_the_user_changed(empty: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    for name in ("stages", "models", ".dvc/plots"):
        shutil.copytree(ROOT / name, old / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "requirements.txt", ".dvcignore"):
        shutil.copy(ROOT / name, old)
    (old / "artifacts").mkdir()
    shutil.copy(ROOT / "artifacts/.gitignore", old / "artifacts")
    (old / "stages" / "obsolete.py").write_text("# older\n")
    (old / "stages" / "__init__.py").write_text("# older\n")
    (old / "stages" / "common" / "__init__.py").write_text("# older\n")
    for name, change in {
        "params.yaml": ("# Intra-op threads per session, 1 to 1024.", "# Threads."),
        "dvc.yaml": ("      - stages/gate\n", ""),
    }.items():
        text = (old / name).read_text()
        assert change[0] in text
        (old / name).write_text(text.replace(*change))
    (empty / "params.yaml").write_text("train:\n  lr: 0.1\n")
    stage.run(stage.Origin(old), empty)
    knobs, dvc_yaml, changed = empty / "params.yaml", empty / "dvc.yaml", empty / "stages" / "common" / "__init__.py"
    knobs.write_text(knobs.read_text().replace("method: dynamic", "method: static"))
    dvc_yaml.write_text(dvc_yaml.read_text().replace("      - models\n", "      - models\n      - train.py\n"))
    changed.write_text("# mine\n")
    (empty / "models" / "digits.py").unlink()
    assert screen.render(stage.run(stage.Origin(old), empty)).startswith("Nothing to do")
    older = ["stages/__init__.py", "params.yaml", "dvc.yaml", "stages/obsolete.py"]
    before = knobs.read_text()
    adoption = stage.run(CODE, empty)
    assert (adoption.files["older"], adoption.files["kept"]) == (older, ["stages/common/__init__.py"])
    assert "Next:" not in screen.render(adoption)
    assert knobs.read_text() == before
    adoption = stage.run(CODE, empty, upgrade=True)
    assert (adoption.files["replaced"], adoption.files["removed"]) == (older[:3], older[3:])
    assert "Set export.source" not in screen.render(adoption)
    assert adoption.files["kept"] == ["stages/common/__init__.py"]
    ours = (ROOT / "params.yaml").read_text()
    ours = ours[ours.index("# How production") :].replace("method: dynamic", "method: static")
    expected = f"train:\n  lr: 0.1\n\n{ours}"
    assert knobs.read_text() == expected
    assert "- train.py\n" in dvc_yaml.read_text()
    assert "      - stages/gate\n" in dvc_yaml.read_text()
    assert changed.read_text() == "# mine\n"
    assert not (empty / "models" / "digits.py").exists()
    assert stage.run(CODE, empty, upgrade=True).files["replaced"] == []


def test_what_both_changed_in_the_same_place_is_left_to_the_user() -> None:
    assert merge.three_way("a: 1\nb: 2\n", "a: 1\nb: 1\n", "a: 3\nb: 3\n") is None
    assert merge.three_way("a: 1\n\n\n\nb: 2\n", "a: 1\n\n\n\nb: 1\n", "a: 3\n\n\n\nb: 1\n") == "a: 3\n\n\n\nb: 2\n"


def test_dvc_may_be_initialised_in_a_folder_of_the_git_repository_or_without_git(tmp_path: Path) -> None:
    (tmp_path / "ml" / ".dvc").mkdir(parents=True)
    assert stage.run(CODE, tmp_path / "ml").root == tmp_path / "ml"


def test_a_folder_outside_of_any_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"is not in a DVC repository\. Run git init and dvc init"):
        stage.run(CODE, tmp_path)
    with pytest.raises(StageError, match="is the checkout that init runs from"):
        stage.run(CODE, ROOT / "models")


def test_the_command_says_what_it_did(empty: Path) -> None:
    command = ["python", "-m", "stages.init", str(empty / "int8")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    printed = " ".join(printed.split())
    assert "dvc repro int8/dvc.yaml" in printed
    assert "deps of export in int8/dvc.yaml" in printed
    wrong = subprocess.run([*command, "--models", "A b"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "'A b' is not a valid model name" in wrong.stderr
