"""What the stage measures, decides and writes."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from stages.common.base import params, paths
from stages.common.base.errors import MissingInputError, ParamsError, StageError
from stages.common.compare.decided import upper_bound
from stages.common.data.evaldata import Batch
from stages.common.judging import serve
from stages.common.model import sessions
from stages.parity import measure, stage
from stages.parity.movement import BatchEffect
from tests.parity.conftest import Project, graph
from tests.plots import unknown_fields

ROOT = Path(__file__).resolve().parents[2]

SAME = graph("(float[N,3] x) => (float[N,3] y) { y = Identity(x) }")
SHIFTED = graph(
    "(float[N,3] x) => (float[N,3] y) <float[3] c = {0.0, 0.01, -0.03}> { y = Add(x, c) }",
)
CLASSIFIER = graph("(float[N,3] x) => (float[N,3] p) { p = Softmax<axis=-1>(x) }")
SHARPER = graph(
    "(float[N,3] x) => (float[N,3] p) <float[3] c = {1.3, 1.0, 1.0}> { s = Mul(x, c) p = Softmax<axis=-1>(s) }"
)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stages.parity", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    """The outcome of each rule by name; if several have the same name, that of the last."""
    return {rule["name"]: rule["outcome"] for rule in result["rules"]}


class TestFigures:
    def test_known_differences(self, project: Project) -> None:
        x = normal(50, 3)
        project.write(SAME, SHIFTED, {"x": x}, tree={"parity": {"outputs": {"y": {"abs_tol": 0.04, "mean_tol": 0.01}}}})
        result = project.run()
        difference = (x + np.array([0, 0.01, -0.03], np.float32)).astype(np.float64) - x
        absolute = np.abs(difference)
        output = result["outputs"]["y"]
        assert result["passed"] is False  # the mean is 0.0133
        assert output["max_abs"] == pytest.approx(absolute.max(), rel=1e-5)
        assert output["mean_abs"] == pytest.approx(absolute.mean(), rel=1e-5)
        assert output["p50_abs"] == pytest.approx(0.01, rel=0.006)
        sqnr = 10 * np.log10(np.square(x.astype(np.float64)).sum() / np.square(difference).sum())
        assert output["sqnr_db"] == pytest.approx(sqnr, rel=1e-5)
        nrmse = np.sqrt(np.square(difference).mean()) / x.astype(np.float64).std()
        assert output["nrmse"] == pytest.approx(nrmse, rel=1e-5)
        assert result["diff"]["nrmse"] == pytest.approx(nrmse, rel=1e-3)
        assert outcomes(result) == {"nonfinite": "passed", "abs_tol": "passed", "mean_tol": "failed"}
        assert result["judged"]["samples"] == 50

    def test_the_headlines_are_those_of_the_design_and_every_null_has_a_reason(self, project: Project) -> None:
        project.write(SAME, SAME, {"x": normal(5, 3)})
        result = project.run()
        headlines = json.loads(paths.PARITY.read_text(encoding="utf-8"))
        flat = {
            f"{group}.{key}": value
            for group, tree in headlines.items()
            if group != "passed"
            for key, value in tree.items()
        }
        assert list(flat) == [
            "diff.max_abs", "diff.mean_abs", "diff.nrmse", "diff.sqnr_db", "diff.min_cosine",
            "decisions.flips", "decisions.flip_rate_high95", "task.fp32", "task.int8", "batch_effect.max_abs",
            "judged.samples",
        ]  # fmt: skip
        for key, value in flat.items():
            assert value is not None or result["null_reasons"][key]
        for name, output in result["outputs"].items():
            for key, value in output.items():
                assert value is not None or result["null_reasons"][f"outputs.{name}.{key}"]
        assert headlines["passed"] is True
        assert result["null_reasons"]["outputs.y.sqnr_db"] == "the outputs are identical, so there is no noise"

    def test_no_key_is_called_error(self, project: Project) -> None:
        project.write(CLASSIFIER, SHARPER, {"x": normal(50, 3)})
        project.run()
        for path in (paths.PARITY, paths.PARITY_DETAILS):
            assert '"error"' not in path.read_text(encoding="utf-8")

    def test_decisions_and_task(self, project: Project) -> None:
        x = normal(400, 3)
        labels = x.argmax(axis=1)
        project.write(CLASSIFIER, SHARPER, {"x": x}, labels, tree={"parity": {"abs_tol": 1, "mean_tol": 1}})
        result = project.run()
        flips = int(((x * [1.3, 1, 1]).argmax(axis=1) != labels).sum())
        assert flips > 5
        assert result["decisions"]["flips"] == flips
        assert result["task"]["fp32"] == 1.0
        assert result["task"]["int8"] == pytest.approx(1 - flips / 400, rel=1e-3)
        assert result["task"]["mcnemar_p"] < 0.05
        assert "beyond chance" in project.printed()

    @pytest.mark.parametrize("batch", [1, 8])
    def test_softmax_and_log_softmax_get_the_same_verdict(self, project: Project, batch: int) -> None:
        results = []
        for name in ("Softmax", "LogSoftmax"):
            fp32, int8 = (
                graph(f"(float[N,3] x) => (float[N,3] p) <float[3] c = {{{c}, 20, 20}}> "
                      f"{{ s = Mul(x, c) p = {name}<axis=-1>(s) }}")
                for c in (20.0, 20.3)
            )  # fmt: skip
            tree = {"serving": {"batch_size": batch}}
            project.write(fp32, int8, {"x": normal(200, 3)}, normal(200, 3).argmax(1), tree=tree)
            results.append(project.run())
        plain, log = results
        assert plain["passed"] is log["passed"] is False  # by NRMSE the logarithms would pass
        for key in ("nrmse", "max_abs", "mean_abs"):
            assert log["diff"][key] == pytest.approx(plain["diff"][key], rel=1e-3)
        assert outcomes(log) == outcomes(plain)
        assert (log["decisions"]["flips"], log["task"]["int8"]) == (plain["decisions"]["flips"], plain["task"]["int8"])
        assert (plain["judged"]["logarithms"], log["judged"]["logarithms"]) == ([], ["p"])
        assert "logarithms of probabilities" in log["notes"][-1]

    def test_the_same_inputs_give_the_same_bytes(self, project: Project) -> None:
        project.write(CLASSIFIER, SHARPER, {"x": normal(300, 3)})
        outputs = (paths.PARITY, paths.PARITY_DETAILS, paths.PARITY_ERRORS, paths.PARITY_SCATTER, paths.PARITY_WORST)
        project.run()
        before = [path.read_bytes() for path in outputs]
        project.run()
        assert [path.read_bytes() for path in outputs] == before

    def test_one_batch_size_gives_what_another_gives_where_the_model_does_not_care(self, project: Project) -> None:
        project.write(CLASSIFIER, SHARPER, {"x": normal(301, 3)})
        results = []
        for size in (1, 7, 301, 1000):
            project.params({"serving": {"batch_size": size}})
            result = project.run()
            assert result["judged"]["batch"] == size
            results.append([result[key] for key in ("outputs", "decisions", "probabilities", "rules", "worst")])
        assert results[1:] == results[:-1]

    def test_zeros_in_fp32_have_no_signal(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": np.zeros((9, 3), np.float32)}, tree={"parity": {"min_sqnr_db": 20}})
        result = project.run()
        assert outcomes(result)["min_sqnr_db"] == "failed"
        assert result["outputs"]["y"]["sqnr_db"] is None
        assert result["null_reasons"]["outputs.y.sqnr_db"] == "fp32 is zero everywhere"


class TestEvidence:
    def test_the_worst_samples_come_first(self, project: Project) -> None:
        x = np.zeros((30, 3), np.float32)
        x[17, 2] = 5
        scaled = graph("(float[N,3] x) => (float[N,3] y) <float[1] c = {1.1}> { y = Mul(x, c) }")
        project.write(SAME, scaled, {"x": x})
        project.run()
        worst = rows(paths.PARITY_WORST)
        assert len(worst) == 1  # the others are equal
        assert (worst[0]["sample"], worst[0]["position"], worst[0]["fp32"]) == ("17", "2", "5.0")
        assert float(worst[0]["int8"]) == pytest.approx(5.5)

    def test_the_histogram_counts_every_value_and_the_scatter_holds_pairs(self, project: Project) -> None:
        x = normal(50, 3)
        project.write(SAME, SHIFTED, {"x": x})
        project.run()
        bins = rows(paths.PARITY_ERRORS)
        assert sum(int(row["values"]) for row in bins) == 150
        assert (bins[0]["low"], bins[0]["high"], bins[0]["values"]) == ("0.0", "0.0", "50")
        for row in rows(paths.PARITY_SCATTER):
            assert abs(float(row["int8"]) - float(row["fp32"])) < 0.031

    @pytest.mark.parametrize("name", ["parity_errors", "parity_scatter"])
    def test_the_plot_templates_use_columns_that_exist(self, project: Project, name: str) -> None:
        template = (ROOT / ".dvc" / "plots" / f"{name}.json").read_text(encoding="utf-8")
        project.write(SAME, SHIFTED, {"x": normal(5, 3)})
        project.run()
        columns = set(rows(paths.DETAILS / f"{name}.csv")[0])
        assert unknown_fields(json.loads(template), columns) == set()


class TestNotFinite:
    LOG = graph("(float[N,3] x) => (float[N,3] y) { y = Log(x) }")
    CLEAN = graph("(float[N,3] x) => (float[N,3] y) <float[1] e = {1e-9}> { m = Max(x, e) y = Log(m) }")

    @pytest.mark.parametrize("swapped", [False, True])
    def test_a_nan_on_one_side_fails_whatever_the_tolerance_and_names_the_samples(
        self, project: Project, swapped: bool
    ) -> None:
        x = np.abs(normal(20, 3)) + 0.1
        x[[4, 11], 1] = -1
        models = (self.CLEAN, self.LOG) if swapped else (self.LOG, self.CLEAN)
        off = {"parity": {"max_nrmse": None}}
        project.write(*models, {"x": x}, tree=off)
        result = project.run()
        assert result["passed"] is False
        assert result["outputs"]["y"]["nonfinite_samples"] == 2
        assert "only one model gives NaN or infinity in 2 samples: 4, 11" in project.printed()
        assert {row["fp32"] for row in rows(paths.PARITY_WORST)[:2]} | {
            row["int8"] for row in rows(paths.PARITY_WORST)[:2]
        } >= {"nan"}
        assert all(row["fp32"] and row["int8"] for row in rows(paths.PARITY_SCATTER))

    def test_int8_that_launders_a_nan_input_fails(self, project: Project) -> None:
        x = np.abs(normal(20, 3)) + 0.1
        x[7, 0] = np.nan
        launders = graph(
            "(float[N,3] x) => (float[N,3] y) { q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }"
        )
        project.write(SAME, launders, {"x": x}, tree={"parity": {"max_nrmse": 100}})
        assert project.run()["passed"] is False
        assert "only one model gives NaN or infinity in 1 sample: 7" in project.printed()

    def test_the_same_nan_on_both_sides_is_not_a_difference(self, project: Project) -> None:
        x = np.abs(normal(20, 3)) + 0.1
        x[4, 1] = -1
        project.write(self.LOG, self.LOG, {"x": x})
        assert project.run()["passed"] is True

    def test_nothing_finite_in_fp32_is_an_error(self, project: Project) -> None:
        project.write(self.LOG, self.LOG, {"x": np.full((4, 3), -1, np.float32)})
        with pytest.raises(StageError, match=r"output 'y' of artifacts/model.onnx is NaN or infinite for every sample"):
            project.run()


class TestRules:
    PROB = graph("(float[N,3] x) => (float[N,3] prob) { prob = Softmax<axis=-1>(x) }")

    def test_own_tolerances_replace_those_for_all(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, tree={"parity": {"outputs": {"y": {"abs_tol": 0.05}}}})
        assert outcomes(project.run()) == {"nonfinite": "passed", "abs_tol": "passed"}

    def test_an_unknown_output_is_refused_with_the_nearest_name(self, project: Project) -> None:
        tolerances = {"parity": {"outputs": {"probs": {"abs_tol": 1}}}}
        project.write(self.PROB, self.PROB, {"x": normal(9, 3)}, tree=tolerances)
        with pytest.raises(ParamsError, match=r"probs is not an output of the model; did you mean prob\?"):
            project.run()

    def test_too_few_samples_cannot_bound_a_flip_rate(self, project: Project) -> None:
        project.write(CLASSIFIER, CLASSIFIER, {"x": normal(298, 3)}, tree={"parity": {"max_flip_rate": 0.01}})
        assert outcomes(project.run())["max_flip_rate"] == "failed"
        assert "too few samples: 298; it takes 299 without a flip" in project.printed()
        project.write(CLASSIFIER, CLASSIFIER, {"x": normal(299, 3)}, tree={"parity": {"max_flip_rate": 0.01}})
        assert outcomes(project.run())["max_flip_rate"] == "passed"

    @pytest.mark.parametrize(
        ("rule", "words"),
        [
            ({"max_flip_rate": 0.01}, "no output holds a decision"),
            ({"max_task_drop": 0.01}, "the evaluation data has no labels"),
        ],
    )
    def test_a_rule_that_nothing_can_prove_does_not_pass(
        self, project: Project, rule: dict[str, float], words: str
    ) -> None:
        single = graph("(float[N,1] x) => (float[N,1] y) { y = Identity(x) }")
        project.write(single, single, {"x": normal(400, 1)}, tree={"parity": rule})
        assert project.run()["passed"] is False
        assert words in project.printed()

    @pytest.mark.parametrize(
        ("labels", "reason"),
        [
            (np.array(["cat", "dog"] * 60), "the labels do not match any output"),
            (np.zeros(120), "the labels of all samples are equal"),
        ],
    )
    def test_labels_that_give_no_task_metric_are_not_passed_over(
        self, project: Project, labels: np.ndarray, reason: str
    ) -> None:
        single = graph("(float[N,1] x) => (float[N,1] y) { y = Identity(x) }")
        project.write(single, single, {"x": normal(120, 1)}, labels)
        assert project.run()["task"]["reason"] == reason
        note = "The task metric was not computed, because the labels do not match any output."
        assert (note in " ".join(project.printed().split())) == ("match" in reason)

    def test_a_threshold_makes_a_score_a_decision(self, project: Project) -> None:
        model = graph("(float[N,1] x) => (float[N,1] p) { p = Sigmoid(x) }")
        moved = graph("(float[N,1] x) => (float[N,1] p) <float[1] c = {0.1}> { s = Add(x, c) p = Sigmoid(s) }")
        x = normal(200, 1)
        project.write(model, moved, {"x": x}, tree={"parity": {"threshold": 0.5}})
        result = project.run()
        assert result["decisions"]["flips"] == int(((x > -0.1) & (x < 0)).sum())
        assert result["judged"]["decision"] == "p >= 0.5"

    def test_a_threshold_without_a_score_is_reported(self, project: Project) -> None:
        project.write(CLASSIFIER, CLASSIFIER, {"x": normal(9, 3)}, tree={"parity": {"threshold": 0.5}})
        assert "parity.threshold is set, but no output has one or two scores" in " ".join(project.run()["notes"])


class TestRulesByKindOfOutput:
    """Each kind of output is judged in its own unit by default."""

    def test_a_regressor_in_dollars_passes_where_it_is_good(self, project: Project) -> None:
        project.write(*prices(1.005), {"x": normal(120, 3)})
        result = project.run()
        assert result["outputs"]["y"]["max_abs"] > 50  # dollars
        assert (result["passed"], outcomes(result)) == (True, {"nonfinite": "passed", "max_nrmse": "passed"})

    def test_an_offset_does_not_hide_that_it_is_bad(self, project: Project) -> None:
        project.write(*prices(1.05), {"x": normal(120, 3)})
        result = project.run()
        assert result["outputs"]["y"]["sqnr_db"] > 25
        assert outcomes(result)["max_nrmse"] == "failed"

    def test_logits_are_not_judged_by_an_absolute_tolerance(self, project: Project) -> None:
        logits = graph("(float[N,3] x) => (float[N,3] logits) <float[1] c = {20.0}> { logits = Mul(x, c) }")
        other = graph("(float[N,3] x) => (float[N,3] logits) <float[1] c = {20.2}> { logits = Mul(x, c) }")
        project.write(logits, other, {"x": normal(400, 3)})
        result = project.run()
        assert result["outputs"]["logits"]["max_abs"] > 0.4
        assert result["decisions"]["flips"] == 0
        assert result["passed"] is True

    def test_a_null_turns_the_rule_off(self, project: Project) -> None:
        project.write(*prices(2.0), {"x": normal(120, 3)}, tree={"parity": {"max_nrmse": None}})
        assert outcomes(project.run()) == {"nonfinite": "passed"}


def prices(slope: float) -> tuple[ModelProto, ModelProto]:
    """A regressor with values around 250 000, a few thousand apart, and one whose deviations are scaled by `slope`."""
    body = (
        "(float[N,3] x) => (float[N,1] y) <int64[1] a = {1}, float[1] s = {%f}, float[1] o = {250000.0}> "
        "{ r = ReduceSum<keepdims=1>(x, a) m = Mul(r, s) y = Add(m, o) }"
    )
    moved = body if slope < 1.01 else body.replace("250000.0", "250900.0")
    return graph(body % 5000.0), graph(moved % (5000.0 * slope))


class TestVacuous:
    """A verdict proves nothing if a model that always answers the median would get it too; a note says so."""

    def test_a_small_output_under_a_large_tolerance(self, project: Project) -> None:
        small = graph("(float[N,1] x) => (float[N,1] p) <float[1] c = {0.01}> { s = Sigmoid(x) p = Mul(s, c) }")
        noisy = graph("(float[N,1] x) => (float[N,1] p) <float[1] c = {0.004}> { s = Sigmoid(x) p = Mul(s, c) }")
        project.write(small, noisy, {"x": normal(120, 1)})
        result = project.run()
        assert result["outputs"]["p"]["sqnr_db"] < 6
        assert (result["passed"], result["judged"]["vacuous"]) == (True, ["p"])
        note = "this proves nothing about 'p'; set parity.outputs.p.max_nrmse, e.g. to 0.1."
        assert note in " ".join(project.printed().split())
        project.params({"parity": {"outputs": {"p": {"max_nrmse": 0.1}}}})
        result = project.run()
        assert (result["passed"], result["judged"]["vacuous"]) == (False, [])

    @pytest.mark.parametrize("scale", [1.0, 50.0])
    def test_scores_beside_boxes_in_one_output(self, project: Project, scale: float) -> None:
        """As a YOLO model gives them: if the scores turn around, the error of the boxes hides it."""
        body = (
            "(float[N,3] x) => (float[N,6,1] y) <float[1] a = {100.0}, float[1] b = {%f}, int64[1] c = {2}> "
            "{ l = Mul(x, a) r = Mul(x, b) j = Concat<axis=1>(l, r) y = Unsqueeze(j, c) }"
        )
        after = scale if scale > 1 else -scale
        project.write(graph(body % scale), graph(body % after), {"x": normal(120, 3)})
        result = project.run()
        note = "not for 3 of 6 parts along axis 1 whose values are much smaller (at index"
        assert result["passed"] is True
        assert any(note in sentence for sentence in result["notes"]) == (scale == 1)

    def test_a_constant_output(self, project: Project) -> None:
        constant = graph(
            "(float[N,3] x) => (float[N,3] p) <float[1] c = {0.0}> { s = Mul(x, c) p = Softmax<axis=-1>(s) }"
        )
        project.write(constant, constant, {"x": normal(120, 3)})
        assert project.run()["judged"]["vacuous"] == ["p"]
        printed = " ".join(project.printed().split())
        assert "give export samples that differ" in printed
        assert printed.endswith(", but that proves nothing.")

    def test_a_classifier_whose_answers_vary(self, project: Project) -> None:
        project.write(CLASSIFIER, CLASSIFIER, {"x": 4 * normal(120, 3)})
        result = project.run()
        assert (result["passed"], result["judged"]["vacuous"]) == (True, [])

    @pytest.mark.parametrize("beside", [False, True])
    def test_an_output_that_is_empty_for_every_sample(self, project: Project, *, beside: bool) -> None:
        """As a detector gives it if no score of the evaluation data reaches its threshold."""
        more, also = (", float[N,3] p", "p = Softmax<axis=-1>(x)") if beside else ("", "")
        model = graph(
            f"(float[N,3] x) => (int64[K,2] found{more}) <float[1] t = {{1e6}}> "
            f"{{ over = Greater(x, t) at = NonZero(over) found = Transpose<perm=[1,0]>(at) {also} }}"
        )
        project.write(model, model, {"x": 4 * normal(120, 3)})
        result = project.run()
        assert (result["passed"], result["judged"]["vacuous"]) == (True, ["found"])
        printed = " ".join(project.printed().split())
        assert "Nothing of 'found' was compared, as both models give no values for any judged sample" in printed
        assert printed.endswith(", but that proves nothing.") != beside

    def test_text_labels_alone(self, project: Project) -> None:
        model = graph(
            "(float[N,3] x) => (string[N] y) { i = ArgMax<axis=1, keepdims=0>(x) y = ai.onnx.ml.LabelEncoder"
            '<keys_int64s=[0,1,2], values_strings=["a","b","c"]>(i) }'
        )
        project.write(model, model, {"x": normal(50, 3)})
        assert project.run()["judged"]["vacuous"] == []


class TestSamplesNeeded:
    def test_too_few_for_the_tolerance_is_reported(self, project: Project) -> None:
        other = graph("(float[N,3] x) => (float[N,3] p) { same = Identity(x) p = Softmax<axis=-1>(same) }")
        project.write(CLASSIFIER, other, {"x": normal(2, 3)})
        result = project.run()
        assert result["judged"]["needed"] == {"abs_tol": 299}
        assert "With 2 samples, up to 77.6% of all samples may exceed abs_tol" in " ".join(result["notes"])
        project.write(CLASSIFIER, other, {"x": normal(1, 3)})
        assert "With 1 sample, up to 95.0% of all samples may exceed abs_tol" in " ".join(project.run()["notes"])

    def test_enough_is_not_mentioned(self, project: Project) -> None:
        project.write(CLASSIFIER, CLASSIFIER, {"x": 4 * normal(299, 3)})
        assert not [note for note in project.run()["notes"] if "may exceed abs_tol" in note]


class TestKindsOfModel:
    def test_a_fixed_batch_is_filled_by_repeating_samples(self, project: Project) -> None:
        fixed = graph("(float[4,3] x) => (float[4,3] y) { y = Identity(x) }")
        project.write(fixed, fixed, {"x": normal(10, 3)})
        result = project.run()
        assert (result["judged"]["batch"], result["judged"]["samples"]) == (4, 10)
        assert result["batch_effect"]["max_abs"] is None
        note = "Served in batches of 4, as the model and its data require, not of serving.batch_size 1."
        assert note in result["notes"]

    def test_fewer_samples_than_a_batch_are_repeated(self, project: Project) -> None:
        """Repeating samples does not change the scale of the batch, and each sample counts once."""
        scaled = graph(
            "(float[N,3] x) => (float[N,3] y) { q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }"
        )
        project.write(SAME, scaled, {"x": normal(5, 3)}, tree={"serving": {"batch_size": 5}})
        whole = project.run()
        project.params({"serving": {"batch_size": 32}})
        repeated = project.run()
        assert (repeated["judged"]["batch"], repeated["judged"]["samples"]) == (32, 5)
        assert repeated["outputs"] == whole["outputs"]
        assert "The judged samples (5) do not fill a batch of 32: they were repeated." in repeated["notes"]

    def test_a_fixed_batch_that_no_sample_fills(self, project: Project) -> None:
        fixed = graph("(float[4,3] x) => (float[4,3] y) { y = Identity(x) }")
        project.write(fixed, fixed, {"x": normal(3, 3)})
        assert project.run()["judged"]["samples"] == 3

    def test_feeds_with_state_on_another_axis(self, project: Project) -> None:
        cell = graph(
            "(float[1,5] x, float[2,1,5] h) => (float[1,5] y, float[2,1,5] hn) <int64[1] a = {0}> "
            "{ hn = Add(h, x) y = ReduceSum<keepdims=0>(hn, a) }"
        )
        project.write(cell, cell, {"x": normal(8, 1, 5), "h": normal(8, 2, 1, 5)}, layout="feeds")
        result = project.run()
        assert (result["judged"]["samples"], result["passed"]) == (8, True)
        assert set(result["outputs"]) == {"y", "hn"}

    def test_text_labels_and_maps(self, project: Project) -> None:
        zipped = graph(
            "(float[N,3] x) => (string[N] label, seq(map(string, float)) p) { s = Softmax<axis=-1>(x) "
            'p = ai.onnx.ml.ZipMap<classlabels_strings=["a","b","c"]>(s) '
            "i = ArgMax<axis=1, keepdims=0>(x) label = ai.onnx.ml.LabelEncoder"
            '<keys_int64s=[0,1,2], values_strings=["a","b","c"]>(i) }'
        )
        x = normal(30, 3)
        labels = np.array(["a", "b", "c"])[x.argmax(axis=1)]
        project.write(zipped, zipped, {"x": x}, labels)
        result = project.run()
        assert (result["decisions"]["flips"], result["decisions"]["confident_flips"]) == (0, 0)
        assert result["task"]["fp32"] == 1.0
        assert "probabilities" in project.printed()

    def test_a_segmenter_decides_each_pixel(self, project: Project) -> None:
        model = graph("(float[N,3,16,20] x) => (float[N,3,16,20] p) { p = Softmax<axis=1>(x) }")
        other = graph(
            "(float[N,3,16,20] x) => (float[N,3,16,20] p) <float[1,3,1,1] c = {0.02, 0.0, 0.0}> "
            "{ s = Add(x, c) p = Softmax<axis=1>(s) }"
        )
        x = normal(30, 3, 16, 20)
        project.write(model, other, {"x": x}, x.argmax(axis=1))
        result = project.run()
        moved = x + np.array([0.02, 0, 0], np.float32)[:, None, None]
        flips = int(np.count_nonzero(moved.argmax(axis=1) != x.argmax(axis=1)))
        assert result["judged"]["decision"] == "argmax of p along axis 1"
        assert (result["decisions"]["count"], result["decisions"]["flips"]) == (30 * 16 * 20, flips)
        assert result["task"]["fp32"] == 1.0
        assert result["task"]["int8"] == pytest.approx(1 - flips / (30 * 16 * 20), rel=1e-5)
        assert result["decisions"]["flip_rate_high95"] == pytest.approx(upper_bound(flips / 320, 30), rel=1e-4)
        assert "at 95 % confidence, as 30 samples show." in project.printed()
        project.params({"parity": {"max_flip_rate": 0.09}})
        rules = {rule["name"]: rule for rule in project.run()["rules"]}
        assert rules["max_flip_rate"]["message"].startswith("too few samples: 30; it takes 32 without a flip")
        assert result["outputs"]["p"]["kind"] == "probabilities"

    def test_of_two_equal_files_no_sample_is_said_to_differ(self, project: Project) -> None:
        model = graph("(float[N,3] x) => (float[N,3] p) { p = Softmax(x) }")
        project.write(model, model, {"x": normal(40, 3)})
        assert project.run()["notes"] == []
        assert "0 of 40 flip (0 confident, 0 ties excluded); both files hold the same model." in project.printed()

    def test_an_empty_output(self, project: Project) -> None:
        empty = graph("(float[N,3] x) => (float[N,0] y) <int64[1] a = {0}, int64[1] d = {1}> { y = Slice(x, a, a, d) }")
        project.write(empty, empty, {"x": normal(4, 3)})
        assert project.run()["passed"] is True
        assert "empty in both models" in project.printed()

    @pytest.mark.parametrize(("int8", "runs"), [(SAME, 1), (SHIFTED, 2)], ids=["equal", "different"])
    def test_two_equal_files_run_once(
        self, int8: ModelProto, runs: int, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ran: list[np.ndarray] = []

        def values(model: serve.Model, call: Batch) -> serve.Values:
            ran.append(call.indices)
            return sessions.run(model.session, call.feed, name=model.name)

        monkeypatch.setattr(serve.Model, "values", values)
        monkeypatch.setattr(measure, "measure_batch_effect", lambda _: BatchEffect(reason="not here"))
        project.write(SAME, int8, {"x": normal(9, 3)})
        project.run()
        assert len(ran) == 1 + runs * 9, "once to find logarithms, then every sample"

    def test_whole_numbers_alone_must_be_equal_or_have_a_flip_rate(self, project: Project) -> None:
        model = graph("(float[N,3] x) => (int64[N] y) { y = ArgMax<axis=1, keepdims=0>(x) }")
        other = graph(
            "(float[N,3] x) => (int64[N] y) <float[3] c = {0.05, 0.0, 0.0}> "
            "{ s = Add(x, c) y = ArgMax<axis=1, keepdims=0>(s) }"
        )
        project.write(model, other, {"x": normal(500, 3)})
        assert outcomes(project.run()) == {"equal": "failed"}
        assert "values differ, but in a model without float outputs all must be equal" in project.printed()
        project.params({"parity": {"outputs": {"y": {"abs_tol": 3}}}})
        with pytest.raises(ParamsError, match=r"parity.outputs.y.abs_tol limits an output that is not float"):
            project.run()
        project.params({"parity": {"max_flip_rate": 0.1}})
        assert outcomes(project.run()) == {"max_flip_rate": "passed"}

    @pytest.mark.parametrize(
        ("shift", "rate", "outcome", "said"),
        [
            (0.05, None, "failed", "values differ, more than 1%; set parity.max_flip_rate if more may."),
            (0.001, None, "passed", "values differ."),
            (0.001, 0.001, "failed", ", above parity.max_flip_rate 0.001."),
        ],
    )
    def test_whole_numbers_beside_floats_may_change_in_a_hundredth_or_by_the_flip_rate(
        self, project: Project, shift: float, rate: float | None, outcome: str, said: str
    ) -> None:
        """The floats are equal, and the label comes with no scores that would judge it."""
        body = (
            "(float[N,3] x) => (int64[N] label, int64[N,3] counts, float[N,1] y) <float c = {%s}, int64[1] a = {1}> "
            "{ y = ReduceSum<keepdims=1>(x, a) label = ArgMax<axis=1, keepdims=0>(x) "
            "s = Add(x, c) r = Round(s) counts = Cast<to=7>(r) }"
        )
        project.write(graph(body % 0.0), graph(body % shift), {"x": normal(500, 3)})
        project.params({"parity": {"max_flip_rate": rate}})
        result = project.run()
        changed = {rule["output"]: rule for rule in result["rules"] if rule["name"] == "changed"}
        assert changed["counts"]["outcome"] == outcome
        assert result["passed"] is (outcome == "passed")
        assert re.search(f"changed of counts: .* of 1500 .*{re.escape(said)}", project.printed())
        if rate is None:
            assert changed["label"]["outcome"] == "passed"
        else:
            assert set(changed) == {"counts"}, "the rule on flips judges the label"

    def test_a_label_with_scores_is_judged_by_them(self, project: Project) -> None:
        body = (
            "(float[N,3] x) => (int64[N] y, float[N,3] p) <float[3] c = {%s, 0.0, 0.0}> "
            "{ s = Add(x, c) p = Softmax<axis=1>(s) y = ArgMax<axis=1, keepdims=0>(s) }"
        )
        project.write(graph(body % 0.0), graph(body % 0.06), {"x": normal(500, 3)})
        result = project.run()
        assert result["outputs"]["y"]["values_changed"] > 5
        assert outcomes(result) == {"nonfinite": "passed", "abs_tol": "passed", "mean_tol": "passed"}

    def test_a_number_of_boxes_that_depends_on_the_values(self, project: Project) -> None:
        boxes = "(float[1,6] x) => (int64[2,K] y) <float[1] t = {%s}> { m = Greater(x, t) y = NonZero(m) }"
        project.write(graph(boxes % 0.0), graph(boxes % 0.1), {"x": normal(60, 6)})
        result = project.run()
        assert outcomes(result)["shape"] == "failed"
        assert "shapes differ for" in project.printed()

    def test_numbers_with_labels_get_r2(self, project: Project) -> None:
        model = graph("(float[N,3] x) => (float[N,1] y) <int64[1] a = {1}> { y = ReduceSum<keepdims=1>(x, a) }")
        x = normal(60, 3)
        project.write(model, model, {"x": x}, x.sum(axis=1) + normal(60) / 10)
        result = project.run()
        assert (result["task"]["metric"], result["task"]["fp32"]) == ("r2", result["task"]["int8"])
        assert 0.99 < result["task"]["fp32"] < 1


class TestErrors:
    def test_missing_files_name_the_stage_that_makes_them(self, project: Project) -> None:
        with pytest.raises(MissingInputError, match=r"^Missing artifacts/model\.onnx\. Run export first\.$"):
            project.run()
        project.write(SAME, SAME, {"x": normal(4, 3)})
        paths.INT8_MODEL.unlink()
        with pytest.raises(MissingInputError, match=r"^Missing artifacts/model\.int8\.onnx\. Run quantize first\.$"):
            project.run()

    def test_models_that_are_not_a_pair(self, project: Project) -> None:
        project.write(SAME, CLASSIFIER, {"x": normal(4, 3)})
        with pytest.raises(StageError, match=r"output 'y' is tensor.float. in artifacts/model.onnx and missing in"):
            project.run()

    def test_outputs_in_another_order_are_a_pair(self, project: Project) -> None:
        body = "(float[N,3] x) => (%s) { a = Identity(x) b = Neg(x) }"
        one, other = (graph(body % order) for order in ("float[N,3] a, float[N,3] b", "float[N,3] b, float[N,3] a"))
        project.write(one, other, {"x": normal(4, 3)})
        assert project.run()["passed"] is True


LOOSE = {"parity": {"outputs": {"y": {"abs_tol": 0.04, "mean_tol": 0.02}}}}


class TestCommand:
    def test_other_tolerances_are_tried_without_any_model_and_nothing_is_written(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, tree=LOOSE)
        project.run()
        before = {path: path.read_bytes() for path in paths.METRICS.rglob("*") if path.is_file()}
        shutil.rmtree(paths.ARTIFACTS)  # as in a clone without `dvc pull`: nothing can be measured
        missed = command("--abs-tol", "0.02")
        assert (missed.returncode, missed.stderr) == (1, "")
        assert "Parity failed on 9 samples" in missed.stdout
        assert command("--abs-tol", "0.06", "--mean-tol", "0.02").returncode == 0
        assert {path: path.read_bytes() for path in paths.METRICS.rglob("*") if path.is_file()} == before

    def test_a_trial_and_a_run_come_to_the_same_rules(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, tree=LOOSE)
        project.run()
        trial = stage.try_tolerances(params.load(), {"abs_tol": 0.02})
        project.params({"parity": {"outputs": {"y": {"abs_tol": 0.02, "mean_tol": 0.02}}}})
        assert project.run()["rules"] == [rule.as_json() for rule in trial.rules]

    def test_a_trial_without_figures_names_the_stage_to_run(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)})
        result = command("--abs-tol", "0.02")
        assert (result.returncode, result.stderr) == (1, "Error: Missing metrics/parity.json. Run parity first.\n")

    def test_a_trial_leaves_outputs_that_are_not_float_alone(self, project: Project) -> None:
        model = graph(
            "(float[N,3] x) => (float[N,3] p, int64[N] y) { p = Softmax(x) y = ArgMax<axis=1, keepdims=0>(x) }"
        )
        project.write(model, model, {"x": normal(9, 3)}, tree={"parity": {"outputs": {"y": {}}}})
        project.run()
        assert stage.try_tolerances(params.load(), {"abs_tol": 0.02}).passed

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ("fp32", "was measured on another artifacts/model.onnx. Run parity again."),
            ("int8", "was measured on another artifacts/model.int8.onnx. Run parity again."),
            ("batch", "was measured with serving.batch_size 1, but params.yaml has 2. Run parity again."),
        ],
    )
    def test_a_trial_on_figures_of_something_else_is_refused(self, project: Project, change: str, words: str) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, tree=LOOSE)
        project.run()
        if change == "batch":
            project.params({**LOOSE, "serving": {"batch_size": 2}})
        else:
            onnx.save(CLASSIFIER, paths.FP32_MODEL if change == "fp32" else paths.INT8_MODEL)
        with pytest.raises(StageError, match=re.escape(words)):
            stage.try_tolerances(params.load(), {"abs_tol": 0.02})

    @pytest.mark.parametrize("value", ["-1", "nan", "much"])
    def test_what_is_not_a_tolerance_is_wrong_usage(self, project: Project, value: str) -> None:
        result = command(f"--abs-tol={value}")
        assert result.returncode == 2
        assert "--abs-tol" in result.stderr

    def test_a_miss_is_a_metric_and_not_a_failure(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, tree={"parity": {"max_nrmse": 1e-6}})
        result = command()
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(paths.PARITY.read_text(encoding="utf-8"))["passed"] is False

    def test_sigterm_leaves_no_metrics(self, project: Project) -> None:
        """The signal comes while a model runs: the input is a pipe that the test never fills."""
        project.write(SAME, SHIFTED, {"x": normal(4, 3)})
        [array] = (paths.EVAL / "inputs").glob("*.npy")
        array.unlink()
        os.mkfifo(array)
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.parity"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        with array.open("wb"):  # blocks until the stage opens it to read
            process.send_signal(signal.SIGTERM)
            _, message = process.communicate()
        assert process.returncode == 143
        assert message == "Terminated: nothing half-written is left behind.\n"
        assert not list(Path().glob("metrics/*"))
