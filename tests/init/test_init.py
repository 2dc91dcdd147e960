"""Adopting the pipeline: a repository with stages, params and a lock of its own keeps all of them."""

import subprocess
from pathlib import Path

import pytest

from stages.common.base import params, yaml12
from stages.common.base.errors import StageError
from stages.init import merge, screen, stage
from tests.pipeline.conftest import Project, clone

ROOT = Path(__file__).resolve().parents[2]

DVC_YAML = """\
# The team's pipeline.
stages:
    prepare:
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
        metrics:
            - score.json:
                cache: false
# The end of the stages.
metrics:
    - score.json
"""

PARAMS = "# How we train.\ntrain:\n  lr: 0.1  # tuned\n"


@pytest.fixture
def team(tmp_path: Path) -> Project:
    """A repository with two stages that ran, commented params and a remote."""
    environment = clone(tmp_path / "checkout").env
    project = Project(tmp_path / "team", environment)
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
    project.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    project.run("dvc", "repro")
    project.commit("The team's work")
    return project


def deletions(project: Project) -> int:
    project.run("git", "add", "-A")
    lines = project.run("git", "diff", "--cached", "--numstat").stdout.splitlines()
    return sum(int(line.split("\t")[1]) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("at", [".", "int8"])
def test_the_team_s_stages_stay_as_they_are_and_ours_run(team: Project, at: str) -> None:
    folder = team.root / at
    adoption = stage.run(ROOT, folder, upgrade=False)
    assert "Next:" in screen.render(adoption)
    assert set(adoption.merged) == ({"dvc.yaml", "params.yaml", ".dvcignore"} if at == "." else set())
    assert deletions(team) == 0
    theirs = team.run("dvc", "repro", "train", "prepare").stdout
    assert "Running" not in theirs
    assert "didn't change" in theirs
    again = stage.run(ROOT, folder, upgrade=False)
    assert screen.render(again).startswith("Nothing to do")
    export = "export" if at == "." else f"{at}/dvc.yaml:export"
    source = (folder / "params.yaml").read_text().replace("models.digits:build", "models.small:build")
    (folder / "params.yaml").write_text(source)
    (folder / "models" / "small.py").write_text(
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n\n\ndef build():\n"
        "    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)\n"
        "    return LogisticRegression().fit(x, x[:, 0] > 0), x, (x[:, 0] > 0).astype(int)\n"
    )
    team.run("dvc", "repro", export)
    assert (folder / "artifacts" / "model.onnx").exists()
    assert (folder / "metrics" / "export.json").exists()
    assert "up to date" in team.run("dvc", "repro", export).stdout + team.run("dvc", "status", export).stdout


def test_the_params_of_the_team_are_not_ours_to_check(tmp_path: Path) -> None:
    text = merge.added(PARAMS, (ROOT / "params.yaml").read_text(), "params.yaml")
    assert text.startswith(PARAMS)
    file = tmp_path / "params.yaml"
    file.write_text(text)
    assert params.load(file) == params.load(ROOT / "params.yaml")


def test_both_files_are_joined_key_by_key() -> None:
    joined = merge.added(DVC_YAML, (ROOT / "dvc.yaml").read_text(), "dvc.yaml")
    tree, ours = yaml12.load(joined), yaml12.load((ROOT / "dvc.yaml").read_text())
    assert list(tree["stages"]) == ["prepare", "train", *ours["stages"]]
    assert tree["stages"]["quantize"] == ours["stages"]["quantize"]
    assert tree["metrics"] == ["score.json", *ours["metrics"]]
    assert tree["plots"] == ours["plots"]
    kept = iter(joined.splitlines())
    assert all(line in kept for line in DVC_YAML.splitlines())


@pytest.mark.parametrize(
    ("name", "text"),
    [("params.yaml", "export:\n  format: csv\n"), ("dvc.yaml", "stages:\n  export:\n    cmd: true\n")],
)
def test_a_name_that_is_taken_is_refused_and_nothing_is_written(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(StageError, match=rf"{name} has (stages\.)?export already, .* python -m stages\.init .*/int8"):
        stage.run(ROOT, tmp_path, upgrade=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([".dvc", ".git", name])
    stage.run(ROOT, tmp_path / "int8", upgrade=False)
    assert (tmp_path / name).read_text() == text


def test_an_upgrade_keeps_what_the_user_changed(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".git").mkdir()
    stage.run(ROOT, tmp_path, upgrade=False)
    record, module, knobs = tmp_path / stage.INSTALLED, tmp_path / "stages" / "__init__.py", tmp_path / "params.yaml"
    knobs.write_text(knobs.read_text().replace("threads: 1", "threads: 2"))
    assert screen.render(stage.run(ROOT, tmp_path, upgrade=True)).startswith("Nothing to do")
    # As if an older version had been installed: another module and other params, recorded as they were.
    before, text = module.read_bytes(), record.read_text()
    module.write_text('"""An older version."""\n')
    for newer, older in ((before, module.read_bytes()), ((ROOT / "params.yaml").read_bytes(), b"older")):
        text = text.replace(stage._sha256(newer), stage._sha256(older))
    record.write_text(text)
    adoption = stage.run(ROOT, tmp_path, upgrade=False)
    assert (adoption.older, adoption.kept) == (("stages/__init__.py",), ("params.yaml",))
    adoption = stage.run(ROOT, tmp_path, upgrade=True)
    assert (adoption.replaced, adoption.kept) == (("stages/__init__.py",), ("params.yaml",))
    assert module.read_bytes() == before
    assert "threads: 2" in knobs.read_text()


def test_a_folder_outside_of_any_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"is not in a DVC repository\. Run git init and dvc init"):
        stage.run(ROOT, tmp_path, upgrade=False)
    with pytest.raises(StageError, match="is the checkout that init runs from"):
        stage.run(ROOT, ROOT / "models", upgrade=False)


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".git").mkdir()
    command = ["python", "-m", "stages.init", str(tmp_path / "int8")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "dvc repro int8/dvc.yaml" in printed
    assert "deps of export in int8/dvc.yaml" in printed
