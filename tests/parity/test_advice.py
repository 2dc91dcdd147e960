"""The shell, DVC and Hydra accept the commands of the advice unchanged, and the commands do what they say."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides

from stages.common.base import params, paths
from stages.parity.advice import experiment
from tests.parity.conftest import Project, graph
from tests.parity.test_stage import CLASSIFIER, SAME, SHIFTED, normal

NAMES = ("plain", "a b", "x:0", "a/b", "/enc/layer.0/MatMul", "layer[0]", "q'q", 'd"d', "back\\slash", "tail\\",
         'a\\"b', "co,ma", "e=e", "{x}", "(y)", "ünï", "$x", "*", "true", "12", "null", "#h")  # fmt: skip


def carried_out(command: str, tree: dict[str, Any]) -> params.Params:
    """The params after `dvc exp run -S ...`, by the shell's, DVC's and Hydra's own parsing."""
    Path("params.yaml").write_text(json.dumps(tree), encoding="utf-8")
    program, words = shlex.split(command)[:3], shlex.split(command)[3:]
    assert program == ["dvc", "exp", "run"]
    assert set(words[::2]) == {"-S"}
    overrides = to_path_overrides(words[1::2])
    assert list(overrides) == ["params.yaml"]
    apply_overrides("params.yaml", overrides["params.yaml"])
    return params.load()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class TestQuoting:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_node_of_any_name_is_excluded(self, name: str) -> None:
        tree: dict[str, Any] = {"quantize": {"exclude_nodes": []}}
        Path("params.yaml").write_text(json.dumps(tree), encoding="utf-8")
        command = experiment([("quantize.exclude_nodes", [name, "other"])])
        assert command is not None
        loaded = carried_out(command, tree)
        assert loaded.quantize.exclude_nodes == (name, "other")

    @pytest.mark.parametrize("name", [name for name in NAMES if name.isascii()])
    def test_an_output_gets_its_tolerance_or_no_command_is_given(self, name: str) -> None:
        tree = {"parity": {"outputs": {name: {"abs_tol": 0.1, "mean_tol": 0.2}, "z": {}}}}
        Path("params.yaml").write_text(json.dumps(tree), encoding="utf-8")
        command = experiment([("parity.outputs", {name: {"abs_tol": 0.5}})])
        if command is None:
            assert set(name) & set("'\"#") or name in ("true", "12", "null")
            return
        loaded = carried_out(command, tree)
        assert set(loaded.parity.outputs) == {name, "z"}
        assert (loaded.parity.outputs[name].abs_tol, loaded.parity.outputs[name].mean_tol) == (0.5, 0.2)

    @pytest.mark.parametrize("tree", [None, {}, {"quantize": None}, {"quantize": {"per_channel": False}}])
    def test_a_key_that_the_file_leaves_out_is_added(self, tree: dict[str, Any] | None) -> None:
        if tree is not None:
            Path("params.yaml").write_text(json.dumps(tree), encoding="utf-8")
        command = experiment([("quantize.method", "static"), ("quantize.per_channel", True)])
        assert command is not None
        loaded = carried_out(command, tree or {})
        assert (loaded.quantize.method, loaded.quantize.per_channel) == ("static", True)

    def test_what_hydra_would_interpolate_is_not_advised(self) -> None:
        assert experiment([("quantize.exclude_nodes", ["a${b}"])]) is None


class TestWiderTolerance:
    @pytest.mark.parametrize("own", [{}, {"y": {"mean_tol": 0.01, "max_nrmse": 0.001}}])
    def test_what_is_advised_passes(self, project: Project, own: dict[str, Any]) -> None:
        tree = {"parity": {"max_nrmse": 0.001, "min_cosine": None, "outputs": own}}
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, tree=tree)
        result = project.run()
        assert result["passed"] is False
        carried_out(result["tolerance"]["command"], tree)
        assert project.run()["passed"] is True

    def test_nothing_that_would_accept_garbage(self, project: Project) -> None:
        garbage = graph("(float[N,3] x) => (float[N,3] p) { s = Neg(x) p = Softmax<axis=-1>(s) }")
        project.write(CLASSIFIER, garbage, {"x": 5 * normal(50, 3)})
        assert project.run()["tolerance"] is None

    def test_no_flip_rate_that_params_refuse(self, project: Project) -> None:
        negated = graph("(float[N,1] x) => (float[N,1] p) { s = Neg(x) p = Sigmoid(s) }")
        model = graph("(float[N,1] x) => (float[N,1] p) { p = Sigmoid(x) }")
        tree = {"parity": {"abs_tol": None, "mean_tol": None, "threshold": 0.5, "max_flip_rate": 0.1}}
        project.write(model, negated, {"x": normal(50, 1)}, tree=tree)
        result = project.run()
        assert result["decisions"]["flip_rate_high95"] == 1.0
        assert result["tolerance"] is None


def test_the_feature_far_outside_is_named(project: Project) -> None:
    values = np.random.default_rng(1).normal(size=(256, 24)).astype(np.float32)
    values[:, 13] = 0.0
    values[5::64, 13] = 150.0
    per_tensor = graph(
        "(float[N,24] x) => (float[N,24] y) { q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }"
    )
    model = graph("(float[N,24] x) => (float[N,24] y) { y = Identity(x) }")
    project.write(
        model, per_tensor, {"x": values}, tree={"serving": {"batch_size": 64}, "parity": {"max_nrmse": 0.001}}
    )
    result = project.run()
    assert result["passed"] is False
    [outlier, *_] = result["outliers"]
    assert (outlier["input"], outlier["position"], outlier["sample"] % 64) == ("x", 13, 5)
    assert "Input features with outliers" in project.printed()
    assert paths.PARITY.exists()
