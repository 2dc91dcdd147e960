"""Advice: every command was tried (quantized and judged), and has the effect that is printed with it."""

import contextlib
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from benchmarks.advice import held
from stages.common.base import params, paths
from stages.common.rule import Outcome, Rule
from stages.common.timing.summary import Interval
from stages.parity import advise as advise_module
from stages.parity import candidates, trials
from stages.parity.judge import ParityResult
from stages.parity.trials import TriedVariant, overridden
from stages.quantize import figures as quantize_figures
from stages.quantize import stage as quantize_stage
from tests.parity.conftest import Project
from tests.parity.test_advice import carried_out

FEATURES, HIDDEN, CLASSES, OUTLYING = 24, 768, 5, 13

AMPLE = 3600
"""More seconds for advice than any machine needs, so that its speed does not decide what is tried."""


def mlp() -> ModelProto:
    """Three layers; the first ignores the feature with outliers."""
    random = np.random.default_rng(0)
    shapes = ((FEATURES, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES))
    weights = [random.normal(0, 1.5 / np.sqrt(shape[0]), shape).astype(np.float32) for shape in shapes]
    weights[0][OUTLYING] = 0.0
    nodes, last = [], "x"
    for place in range(3):
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"m{place}"], name=f"layer[{place}]/a b"))
        nodes.append(helper.make_node("Softmax" if place == 2 else "Relu", [f"m{place}"], [f"r{place}"]))
        last = f"r{place}"
    float_ = onnx.TensorProto.FLOAT
    return helper.make_model(
        helper.make_graph(
            nodes,
            "mlp",
            [helper.make_tensor_value_info("x", float_, ["N", FEATURES])],
            [helper.make_tensor_value_info("r2", float_, ["N", CLASSES])],
            [numpy_helper.from_array(weight, f"w{place}") for place, weight in enumerate(weights)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def cnn(random: np.random.Generator) -> ModelProto:
    """Two convolutions of 64 channels, and the mean of each channel as a logit."""
    float_ = onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], name="one", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["b"], name="two", pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["b"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    weights = [numpy_helper.from_array(random.normal(0, 0.1, (64, 64, 3, 3)).astype(np.float32), name) for name in "vw"]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "cnn",
            [helper.make_tensor_value_info("x", float_, ["N", 64, 16, 16])],
            [helper.make_tensor_value_info("logits", float_, ["N", 64])],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def outlying(count: int = 192) -> np.ndarray:
    """Normal values; a few samples are zero except for an outlier in a feature that the model ignores."""
    values = np.random.default_rng(1).normal(size=(count, FEATURES)).astype(np.float32)
    values[:, OUTLYING] = 0.0
    values[5::64] = 0.0
    values[5::64, OUTLYING] = 150.0
    return values


def quantize() -> None:
    """Run the stage."""
    quantize_figures.write(quantize_stage.run(params.load()))


MISSING: dict[str, Any] = {
    "serving": {"batch_size": 64},
    "quantize": {"exclude_nodes": [], "method": "dynamic", "activation_scale": "tensor"},
    "parity": {"advice_seconds": AMPLE, "abs_tol": 0.08},
}
"""Every choice passes or misses this tolerance by a wide margin, so the timings that steer auto cannot decide."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose INT8 model misses at batch 64."""
    folder = tmp_path_factory.mktemp("missed")
    with contextlib.chdir(folder):
        Project.write(mlp(), mlp(), {"x": outlying()}, tree=MISSING)
        quantize()
    return folder


@pytest.fixture
def missed(template: Path, project: Project) -> Project:
    """A copy of that project in the working directory."""
    shutil.copytree(template, Path(), dirs_exist_ok=True)
    return project


@pytest.fixture
def as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variant counts as twice as fast as fp32, as real speeds depend on what else runs."""
    for module in (trials, advise_module):
        monkeypatch.setattr(module, "timed", lambda *_: Interval(2.0, 1.9, 2.1))


def test_advice_of_auto_covers_all_models_that_a_second_search_may_choose(tmp_path: Path) -> None:
    """Those that passed and raced, and whose interval reaches that of the chosen one."""
    (tmp_path / "frontier.csv").write_text(
        "speedup,speedup_low95,speedup_high95,mb,passes,chosen\n"
        ",,,0.3,false,false\n1.10,1.08,1.12,0.7,true,true\n1.06,1.02,1.09,1.2,true,false\n1.0,0.9,1.07,0.5,true,false\n"
    )
    sizes = trials.about_as_fast(tmp_path / "frontier.csv")
    assert sizes == [0.7, 1.2]
    effect = advise_module.another([mb / 1.4 for mb in sizes])
    assert effect.endswith(": 1.2 to 2 times smaller")
    said = f"largest difference 0.01; 2 times smaller, as fast as fp32{effect}"
    assert held(said, {"largest difference": 0.02, "times smaller": 1.25})["outcome"] == "ok"
    assert held(said, {"largest difference": 0.02, "times smaller": 1.0})["outcome"] == "WRONG: times smaller"
    assert advise_module.another([0.5]) == ""
    assert advise_module.another([0.5, 0.501]).endswith(": 2 times smaller")


@pytest.mark.slow
@pytest.mark.usefixtures("as_fast")
def test_every_advice_does_what_it_says(missed: Project) -> None:
    result = missed.run()
    assert result["passed"] is False
    assert result["advice"][0]["command"] == "dvc exp run -S quantize.activation_scale=row"
    fp32 = paths.FP32_MODEL.stat().st_size
    for advice in result["advice"]:
        largest = float(re.search(r"largest difference ([\d.e-]+)", advice["effect"])[1])  # type: ignore[index]
        smaller = float(re.search(r"([\d.]+) times smaller", advice["effect"])[1])  # type: ignore[index]
        carried_out(advice["command"], MISSING)
        quantize()
        after = missed.run()
        assert after["passed"] is True, advice
        if "quantize.method=auto" in advice["command"]:  # timings decide which of equally fast models it picks
            continue
        assert after["diff"]["max_abs"] == pytest.approx(largest, rel=0.1)
        assert fp32 / paths.INT8_MODEL.stat().st_size == pytest.approx(smaller, rel=0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("as_fast")
def test_a_model_of_auto_that_misses_is_searched_again_with_the_margin_that_it_lacked(missed: Project) -> None:
    tree = {**MISSING, "quantize": {"method": "auto", "per_channel": False}}
    missed.params(tree)
    paths.PLAN.write_text(json.dumps({"strain": 0.8}))  # on the search samples; on all, twice the tolerance
    result = missed.run()
    assert re.fullmatch(r"dvc exp run -S \+quantize\.search\.margin=0\.\d\d", result["advice"][0]["command"])
    assert "times smaller, 1.9 to 2.1 times as fast as fp32" in result["advice"][0]["effect"]
    carried_out(result["advice"][0]["command"], tree)
    quantize()
    assert missed.run()["passed"] is True


@pytest.mark.parametrize(
    ("method", "searched", "judged", "margin"),
    [
        ("auto", 0.5, 1.5, 0.7),  # a third of the tolerance, less a tenth
        ("auto", 0.84, 1.01, 0.26),
        ("auto", 0.05, 2.0, None),  # no margin explains such a miss
        ("auto", 0.5, math.inf, None),
        ("dynamic", 0.5, 1.5, None),
        ("plan", 0.5, 1.5, None),
    ],
)
def test_the_margin_makes_up_for_what_the_search_samples_hid(
    project: Project, method: str, searched: float, judged: float, margin: float | None
) -> None:
    project.params({})
    paths.PLAN.parent.mkdir(parents=True)
    paths.PLAN.write_text(json.dumps({"strain": searched}))
    changed = overridden(params.load(), {"quantize.plan": "plan.json", "quantize.method": method})
    expected = [] if margin is None else [{"quantize.search.margin": margin}]
    assert candidates.larger_margin(changed, judged) == expected


def test_a_larger_margin_comes_first_and_what_the_search_ignores_is_not_tried() -> None:
    changed = overridden(params.Params(), {"quantize.method": "auto", "quantize.per_channel": False})
    tried = [key for overrides in candidates.formats(changed, depends_on_batch=False, strain=1.5) for key in overrides]
    assert "quantize.per_channel" not in tried
    replayed = overridden(params.Params(), {"quantize.plan": "plan.json", "quantize.method": "plan"})
    *_, last = candidates.formats(replayed, depends_on_batch=False, strain=1.5)
    assert last == {"quantize.method": "auto"}


@pytest.mark.usefixtures("as_fast")
def test_a_batch_effect_that_is_noted_is_ended_by_the_first_advice(missed: Project) -> None:
    tree = {**MISSING, "serving": {"batch_size": 1}, "parity": {**MISSING["parity"], "max_nrmse": None}}
    missed.params(tree)
    result = missed.run()
    assert "this verdict only holds for batches of 1" in " ".join(result["notes"])
    assert result["batch_effect"]["max_abs"] > 0.04
    carried_out(result["advice"][0]["command"], tree)
    quantize()
    assert missed.run()["batch_effect"]["max_abs"] < 1e-5


@pytest.mark.slow
def test_where_nothing_passes_it_says_what_was_tried_and_to_ship_fp32(missed: Project) -> None:
    missed.params({**MISSING, "parity": {"abs_tol": 1e-7, "mean_tol": None, "advice_seconds": AMPLE}})
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = missed.run()
    assert result["advice"] == []
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before, "a trial changed the workspace"
    assert re.match(r"No variant both passes and gains anything: .*abs_tol .*\. Ship fp32\.$", result["tried"])
    assert result["tried"] in " ".join(missed.printed().split())


@pytest.mark.parametrize("slow", ["auto", ""])
def test_what_ran_out_of_time_is_not_called_refused_and_fp32_is_not_the_only_way_out(
    missed: Project, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    def run(command: list[str], *, cwd: Path, timeout: float, **_: Any) -> subprocess.CompletedProcess[str]:
        if f'"method": "{slow}' in (cwd / "params.yaml").read_text():
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 1, "", "Error: refused.")

    monkeypatch.setattr(subprocess, "run", run)
    tried = missed.run()["tried"]
    if slow:
        assert tried.endswith(" Raise parity.advice_seconds to try the rest, or ship fp32.")
    else:
        assert tried == "No variant was ready within parity.advice_seconds: raise it, or ship fp32."


@pytest.mark.usefixtures("as_fast")
def test_what_there_was_no_time_for_is_named_after_a_pass_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advise_module, "open_workspace", None)  # would fail if it were used
    random = np.random.default_rng(0)
    model = cnn(random)
    data = {"x": random.normal(size=(40, 64, 16, 16)).astype(np.float32)}
    project.write(model, model, data, tree={"parity": {"advice_seconds": 1e-3}})
    quantize()
    result = project.run()
    assert (result["passed"], result["untried"]) == (True, ["method=static", "method=stored"])
    assert result["tried"] == (
        "No variant (method=static, method=stored) was ready within parity.advice_seconds: raise it."
    )


def test_without_a_budget_nothing_is_tried(missed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advise_module, "open_workspace", None)  # would fail if it were used
    missed.params({**MISSING, "parity": {"advice_seconds": None}})
    result = missed.run()
    assert (result["passed"], result["advice"]) == (False, [])
    assert result["tried"] == "No variant was tried: parity.advice_seconds is null."


@pytest.mark.usefixtures("as_fast")
def test_static_is_tried_where_convolutions_stayed_float(project: Project) -> None:
    random = np.random.default_rng(0)
    model = cnn(random)
    project.write(
        model,
        model,
        {"x": random.normal(size=(40, 64, 16, 16)).astype(np.float32)},
        tree={"parity": {"advice_seconds": AMPLE}},
    )
    quantize()
    result = project.run()
    assert result["passed"] is True
    tree = json.loads(paths.QUANTIZE.read_text(encoding="utf-8"))
    assert tree["status"] == "nothing_to_quantize"
    assert {advice["command"] for advice in result["advice"]} == {
        "dvc exp run -S +quantize.method=static",
        "dvc exp run -S +quantize.method=stored",
    }


@pytest.mark.parametrize(("passes", "last"), [(False, "auto"), (True, "stored")])
def test_after_a_pass_the_search_is_tried_where_what_is_simpler_missed(
    monkeypatch: pytest.MonkeyPatch, *, passes: bool, last: str
) -> None:
    monkeypatch.setattr(candidates, "kept_float", lambda: {"Conv"})
    verdict = ParityResult({}, [] if passes else [Rule("abs_tol", 1.0, 0.04, -0.96, Outcome.FAILED)])
    tried: list[TriedVariant] = []
    for overrides in advise_module._after_a_pass(params.Params(), tried, on_batch=False, no_gain=True):
        tried.append(TriedVariant(overrides, verdict))
    assert tried[0].overrides["quantize.method"] == "static"
    assert tried[-1].overrides["quantize.method"] == last


@pytest.mark.usefixtures("as_fast")
def test_where_int8_is_slow_stored_weights_are_tried(missed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advise_module, "timed", lambda *_: Interval(0.7, 0.69, 0.71))
    tree = {**MISSING, "parity": {**MISSING["parity"], "abs_tol": None, "mean_tol": None}}
    missed.params(tree)
    result = missed.run()
    assert (result["passed"], result["tried"]) == (True, "INT8 is slower here: 0.69 to 0.71 times as fast as fp32.")
    assert result["advice"][-1]["command"] == "dvc exp run -S quantize.method=stored"
    assert result["tried"] in missed.printed()
    monkeypatch.setattr(advise_module, "timed", lambda *_: Interval(0.97, 0.95, 0.99))
    assert missed.run()["tried"] == ""
    monkeypatch.setattr(advise_module, "timed", lambda *_: Interval(0.5, 0.3, 0.8))
    assert missed.run()["tried"].startswith("INT8 is slower here: at most 0.8 times as fast as fp32.")


def test_a_speed_that_few_launches_do_not_tell_is_not_given_as_figures() -> None:
    assert advise_module._speed(Interval(1.0, 0.5, 2.1)) == advise_module.UNKNOWN
    assert advise_module._speed(Interval(1.5, 1.2, 2.0)) == "1.2 to 2 times as fast as fp32"


def test_a_value_that_params_refuse_is_a_problem_of_the_trial() -> None:
    with pytest.raises(Exception, match="weight_type"):
        overridden(params.Params(), {"quantize.weight_type": "QInt3"})


@pytest.mark.parametrize("method", ["dynamic", "static", "weight_only", "stored", "auto"])
def test_no_two_methods_point_at_each_other(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a miss, advice leads to variants that pass; no variant tried after a pass leads back."""
    monkeypatch.setattr(candidates, "kept_float", lambda: {"Conv"})

    def follow(current: params.Params, seen: list[params.Params]) -> None:
        assert current not in seen
        for offered in (candidates.row_scale, candidates.static, candidates.stored):
            for overrides in offered(current):
                follow(overridden(current, overrides), [*seen, current])

    start = params.Params()
    for overrides in [{"quantize.method": method}, *candidates.formats(start, depends_on_batch=True, strain=1.5)]:
        follow(overridden(start, overrides), [])
