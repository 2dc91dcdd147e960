"""Method auto through the stage: what it publishes, what it writes beside it, and the plan that repeats it."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params, Search
from stages.common.data.evaldata import EvalData
from stages.quantize import screen, stage
from stages.quantize.auto import base, choices, costs, explore, find, options, race, search
from stages.quantize.auto.judge import Candidate
from stages.quantize.auto.problem import Point, Problem
from stages.quantize.auto.race import Trial
from tests.quantize import nets
from tests.quantize.running import Bench

QEMU = shutil.which("qemu-x86_64")

RUN = """
import math
from stages.common.base import params
from stages.quantize import growth, stage
growth.LARGEST_SHARE = math.inf
stage.run(params.load())
"""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings steer the search and decide nothing here, so that five rounds of them will do."""
    timings = (costs, "SECONDS_ALL"), (options, "WHOLE_SECONDS"), (base, "SECONDS")
    for module, name in (*timings, (race, "RACE_SECONDS"), (explore, "TRIAL_SECONDS")):
        monkeypatch.setattr(module, name, 0.0)


def outlying_mlp() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """An MLP whose first product reads a few features that are far larger than the others, in a few samples."""
    random = np.random.default_rng(0)
    x = random.normal(size=(160, 64)).astype(np.float32)
    x[::20, 3] *= 400
    return nets.mlp((64, 512, 512, 10)), {"x": x}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plan() -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(paths.PLAN.read_text())
    return tree


def test_what_is_published_passes_and_is_written_down(bench: Bench) -> None:
    bench.give(*outlying_mlp())
    bench.sections = {"serving": {"batch_size": 8}}
    outcome = bench.run(method="auto", search={"objective": "size"})
    tree, trials = plan(), rows(paths.FRONTIER)
    assert outcome.metrics["status"] == "quantized"
    assert outcome.metrics["search"]["evals"] == len(trials) <= 15
    assert outcome.metrics["size"]["times_smaller"] > 2
    (chosen,) = [trial for trial in trials if trial["chosen"] == "true"]
    assert chosen["passes"] == "true"
    assert float(chosen["strain"]) <= 0.85
    assert float(chosen["mb"]) == pytest.approx(paths.INT8_MODEL.stat().st_size / 1e6, rel=1e-3)
    assert set(tree["nodes"]) == set(outcome.nodes)
    for name, row in outcome.nodes.items():
        assert (tree["nodes"][name]["choice"] != "float") == (row["quantized"] == "true")
        assert row["reason"].startswith(f"{tree['nodes'][name]['choice']}: ")
    assert "chosen" in outcome.said


def test_every_node_and_choice_is_in_the_ranking_and_no_judge_sample_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.give(*outlying_mlp())
    judge, seen, read = set(EvalData().indices("judge").tolist()), set(), EvalData.read

    def watched(self: EvalData, indices: np.ndarray) -> dict[str, np.ndarray]:
        seen.update(np.asarray(indices).tolist())
        return read(self, indices)

    monkeypatch.setattr(EvalData, "read", watched)
    bench.sections = {"serving": {"batch_size": 8}}
    bench.run(method="auto")
    assert seen
    assert not seen & judge
    ranked = rows(paths.SENSITIVITY)
    assert {row["node"] for row in ranked} == {"MatMul_p0", "MatMul_p1", "MatMul_p2"}
    chosen = {row["choice"] for row in ranked}
    # Smoothing is no choice where it does not help; rows help against outliers.
    assert chosen | {"smooth", "smooth_row"} == set(choices.CHOICES) - {"dynamic_unsigned", choices.PADDED}
    noise = {(row["node"], row["choice"]): float(row["noise_db"]) for row in ranked}
    assert noise["MatMul_p0", "row"] < noise["MatMul_p0", "dynamic"]
    strain = {(row["node"], row["choice"]): float(row["strain"]) for row in ranked}
    assert strain["MatMul_p0", "stored"] < strain["MatMul_p0", "dynamic"]


def test_the_ranking_is_printed_and_nothing_is_written(bench: Bench) -> None:
    bench.give(*outlying_mlp())
    said = screen.ranking(stage.sensitivity(Params()))
    header, _, *table = said.splitlines()
    assert header.split()[:2] == ["node", "static"]
    assert {line.split()[0] for line in table[:3]} == {"MatMul_p0", "MatMul_p1", "MatMul_p2"}
    worst = [max(map(float, line.split()[1:])) for line in table[:3]]
    assert worst == sorted(worst, reverse=True)
    assert not paths.INT8_MODEL.exists()
    assert not paths.SENSITIVITY.exists()


@pytest.fixture(params=["mlp", "conv"])
def found(bench: Bench, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The INT8 model that auto found, which is gone; its plan is in kept.json."""
    monkeypatch.setitem(choices._OF, "Conv", ("static",))
    if request.param == "mlp":
        bench.give(*outlying_mlp())
    else:
        bench.give(nets.conv_net(16), {"x": nets.normal(40, 1, 16, 16)})
    bench.run(method="auto", search={"objective": "size"})
    model = paths.INT8_MODEL.read_bytes()
    (tmp_path / "kept.json").write_bytes(paths.PLAN.read_bytes())
    assert request.param == "mlp" or plan()["ranges"]
    paths.INT8_MODEL.unlink()
    return model


def test_a_plan_gives_the_same_bytes(bench: Bench, found: bytes) -> None:
    # On another machine the float model may give other ranges; here, because it is calibrated on other samples.
    bench.run(method="plan", plan="kept.json", calibration={"samples": 1})
    assert paths.INT8_MODEL.read_bytes() == found


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (the package qemu-user) is not installed")
@pytest.mark.parametrize("found", ["conv"], indirect=True)
def test_a_plan_gives_the_same_bytes_on_a_cpu_without_vnni(bench: Bench, found: bytes) -> None:
    paths.PARAMS.write_text("quantize: {method: plan, plan: kept.json}")
    root = str(Path(__file__).parents[3])
    command = [str(QEMU), "-cpu", "Haswell-v4", sys.executable, "-c", RUN]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert paths.INT8_MODEL.read_bytes() == found


def test_nothing_passes(bench: Bench) -> None:
    bench.give(*outlying_mlp())
    bench.sections = {"parity": {"min_sqnr_db": 200.0}}
    with pytest.raises(StageError, match=r"No model keeps the answers \(\d+ built\): the best, with"):
        bench.run(method="auto")
    assert not paths.INT8_MODEL.exists()


@pytest.mark.parametrize(
    ("built", "strain", "remedies"),
    [
        (1, 0.9, "Lower quantize.search.margin, widen the tolerance, or deploy the fp32 model."),
        (1, 1.1, "Widen the tolerance, or deploy the fp32 model."),
        (3, 1.1, "Raise quantize.search.max_evals, widen the tolerance, or deploy the fp32 model."),
    ],
)
def test_only_what_may_help_is_advised(built: int, strain: float, remedies: str) -> None:
    candidate = Candidate((1,), {}, None, {}, (), strain, 100)
    trials = [Trial("predicted", candidate, Point((1,), 1.0, 0.0, 100))] * built
    assert find._nothing_passes(trials, Search(max_evals=3), 3).endswith(f"the judge samples). {remedies}")


def test_float64_has_no_choices_and_the_reason_is_given(bench: Bench) -> None:
    model = nets.net([nets.node("MatMul", "x W", "y")], {"x": ["N", 64]}, {"y": ["N", 64]}, {"W": np.eye(64)})
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.elem_type = TensorProto.DOUBLE
    bench.give(model, {"x": nets.normal(60, 64).astype(np.float64)})
    outcome = bench.run(method="auto")
    assert "float64" in outcome.nodes["MatMul_y"]["reason"]
    assert "for the reasons above" in outcome.said


def test_a_rule_that_no_tolerance_widens_is_named(bench: Bench) -> None:
    """How many values an output has depends on its values."""
    nodes = [nets.node("MatMul", "x W", "h"), nets.node("Reshape", "h flat", "f"), nets.node("Greater", "f zero", "g")]
    model = nets.net(
        [*nodes, nets.node("Compress", "f g", "y", axis=0)],
        {"x": ["N", 64]},
        {"y": ["M"]},
        {"W": nets.normal(64, 256), "flat": np.array([-1]), "zero": np.zeros((), np.float32)},
    )
    bench.give(model, {"x": nets.normal(60, 64)})
    with pytest.raises(StageError, match=r"No model can be published \(\d+ built\): the rule shape fails for y"):
        bench.run(method="auto")


@pytest.mark.parametrize("objective", ["size", "latency"])
def test_weights_that_would_grow_stay_float(bench: Bench, objective: str) -> None:
    bench.give(nets.mlp((3, 2, 2)), {"x": nets.normal(60, 3)})
    outcome = bench.run(method="auto", search={"objective": objective})
    assert outcome.metrics["size"]["times_smaller"] == 1
    assert outcome.metrics["nodes"]["quantized"] == 0
    assert plan()["answer"] == "float"
    assert not any(trial["chosen"] == "true" for trial in rows(paths.FRONTIER))
    assert "The model stays fp32: " in outcome.said
    assert paths.INT8_MODEL.read_bytes() == paths.FP32_MODEL.read_bytes()


def test_products_in_double_precision_stay_as_they_are(bench: Bench) -> None:
    nodes = [nets.node("Cast", "x", "d", to=TensorProto.DOUBLE), nets.node("MatMul", "d W", "p")]
    nodes.append(nets.node("Cast", "p", "y", to=TensorProto.FLOAT))
    model = nets.net(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, {"W": np.eye(8)})
    bench.give(model, {"x": nets.normal(60, 8)})
    outcome = bench.run(method="auto", search={"objective": "size"})
    assert "float64" in outcome.nodes["MatMul_p"]["reason"]


def test_the_last_trial_is_kept_for_the_least_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "best_that_passes", _never_passes)
    bench.give(*outlying_mlp())
    outcome = bench.run(method="auto", search={"objective": "size", "max_evals": 4})
    assert [row["origin"] for row in rows(paths.FRONTIER)][-1] == "floats stored"
    assert outcome.metrics["search"]["evals"] == 4


def _never_passes(problem: Problem, _prices: Any, attempt: search.Try, *_: Any) -> tuple[None, None, Problem]:
    """Use up all trials, as when no model passes."""
    options_of = [range(len(node)) for node in problem.options]
    for assignment in itertools.islice(itertools.product(*options_of), 1, None):  # the first one quantizes nothing
        if attempt(assignment) is None:
            break
    return None, None, problem


def test_excluded_nodes_stay_float(bench: Bench) -> None:
    bench.give(*outlying_mlp())
    outcome = bench.run(method="auto", exclude_nodes=["MatMul_p1"], search={"objective": "size"})
    assert outcome.nodes["MatMul_p1"]["quantized"] == "false"
    assert "exclude_nodes" in outcome.nodes["MatMul_p1"]["reason"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a plan"),
        (
            '{"opset": 17, "nodes": {"p": {"choice": "int7"}}}',
            "'int7'; allowed: float, static",
        ),
        (
            '{"opset": 17, "nodes": {"other": {"choice": "row"}}}',
            "'other', but this model has no such node with a weight",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(bench: Bench, tmp_path: Path, content: str, message: str) -> None:
    bench.give(*outlying_mlp())
    path = tmp_path / "a.json"
    measured = '"opset": 17, "rewrites": [], "ranges": {}, "corrections": {}, "smoothing": [],'
    path.write_text(content.replace('"opset": 17,', measured))
    with pytest.raises(StageError, match=message):
        bench.run(method="plan", plan=str(path))


@pytest.mark.parametrize("weights", [False, True])
def test_a_model_whose_main_graph_has_no_weights(bench: Bench, weights: bool) -> None:
    """None at all, or all in the body of a Loop, where they cannot be observed."""
    product = nets.node("MatMul", "h W", "r") if weights else nets.node("Tanh", "h", "r")
    body = helper.make_graph(
        [product, nets.node("Identity", "on", "still")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 64]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 64]),
        ],
    )
    loop = helper.make_node("Loop", ["times", "yes", "x"], ["y"], name="loop", body=body)
    constants = {"times": np.array(2), "yes": np.array(True), "W": nets.normal(64, 64) / 8}
    model = nets.net([loop], {"x": ["N", 64]}, {"y": ["N", 64]}, constants)
    bench.give(model, {"x": nets.normal(60, 64)})
    assert ("MatMul_r" in screen.ranking(stage.sensitivity(Params()))) == weights
    outcome = bench.run(method="auto", search={"objective": "size"})
    assert outcome.quantized() == ({"MatMul_r"} if weights else set())
    assert ("Nothing to quantize: no operator has a constant float weight." in outcome.said) != weights


def test_smoothing_is_fitted_to_more_rows_than_nodes_are_probed_on(bench: Bench) -> None:
    """With one row in a call, the probed calls show few of the channels that may be loud."""
    random = np.random.default_rng(0)
    x = np.abs(nets.normal(300, 64)) / 10
    x[np.arange(300), random.integers(0, 4, 300)] += 20
    model = nets.net([nets.node("MatMul", "x W", "y")], {"x": ["N", 64]}, {"y": ["N", 32]}, {"W": nets.normal(64, 32)})
    bench.give(model, {"x": x})
    strains = {entry.choice: entry.strain or 0.0 for entry in stage.sensitivity(Params())}
    assert strains["smooth"] < strains["dynamic"]
