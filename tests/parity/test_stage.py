"""What the stage measures, decides and writes."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.base import paths
from stages.common.base.errors import MissingInputError, ParamsError, StageError
from tests.parity.conftest import Project, graph

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


class TestMetrics:
    def test_known_differences(self, project: Project) -> None:
        x = normal(50, 3)
        project.write(SAME, SHIFTED, {"x": x})
        found = project.run()
        difference = (x + np.array([0, 0.01, -0.03], np.float32)).astype(np.float64) - x
        absolute = np.abs(difference)
        assert found["passed"] is False  # the mean is 0.0133
        assert found["error"]["max_abs"] == pytest.approx(absolute.max(), rel=1e-3)
        assert found["error"]["mean_abs"] == pytest.approx(absolute.mean(), rel=1e-3)
        assert found["error"]["p50_abs"] == pytest.approx(0.01, rel=0.006)
        sqnr = 10 * np.log10(np.square(x.astype(np.float64)).sum() / np.square(difference).sum())
        assert found["error"]["sqnr_db"] == pytest.approx(sqnr, rel=1e-3)
        assert found["rules"] == {"nonfinite": True, "abs_tol": True, "mean_tol": False}
        assert found["judged"]["samples"] == 50

    def test_every_key_of_the_design_is_there_and_every_null_has_a_reason(self, project: Project) -> None:
        project.write(SAME, SAME, {"x": normal(5, 3)})
        found = project.run()
        for group, keys in {
            "error": ("max_abs", "mean_abs", "p99_abs", "sqnr_db", "min_cosine"),
            "decisions": ("agreement", "flips", "confident_flips", "flip_rate_high95"),
            "task": ("fp32", "int8"),
            "batch_effect": ("max_abs",),
            "judged": ("samples", "batch", "isa"),
        }.items():
            for key in keys:
                value = found[group][key]
                assert value is not None or found["parity_notes"][key]
        assert found["passed"] is True
        assert found["parity_notes"]["sqnr_db"] == "identical outputs: there is no noise"

    def test_decisions_and_task(self, project: Project) -> None:
        x = normal(400, 3)
        labels = x.argmax(axis=1)
        project.write(CLASSIFIER, SHARPER, {"x": x}, labels, params={"parity": {"abs_tol": 1, "mean_tol": 1}})
        found = project.run()
        flips = int(((x * [1.3, 1, 1]).argmax(axis=1) != labels).sum())
        assert flips > 5
        assert found["decisions"]["flips"] == flips
        assert found["task"]["fp32"] == 1.0
        assert found["task"]["int8"] == pytest.approx(1 - flips / 400, rel=1e-3)
        assert found["task"]["mcnemar_p"] < 0.05
        assert "beyond chance" in project.printed()

    def test_the_same_inputs_give_the_same_bytes(self, project: Project) -> None:
        project.write(CLASSIFIER, SHARPER, {"x": normal(300, 3)})
        outputs = (paths.PARITY, paths.PARITY_ERRORS, paths.PARITY_SCATTER, paths.PARITY_WORST)
        project.run()
        before = [path.read_bytes() for path in outputs]
        project.run()
        assert [path.read_bytes() for path in outputs] == before

    def test_one_batch_size_gives_what_another_gives_where_the_model_does_not_care(self, project: Project) -> None:
        project.write(CLASSIFIER, SHARPER, {"x": normal(301, 3)})
        found = []
        for size in (1, 7, 301, 1000):
            project.params({"serving": {"batch_size": size}})
            tree = project.run()
            assert tree["judged"]["batch"] == min(size, 301)
            del tree["judged"]["batch"], tree["batch_effect"], tree["parity_notes"]
            found.append(tree)
        assert found[1:] == found[:-1]

    def test_zeros_in_fp32_have_no_signal(self, project: Project) -> None:
        params = {"parity": {"abs_tol": 0.001, "min_sqnr_db": 20}}
        project.write(SAME, SHIFTED, {"x": np.zeros((9, 3), np.float32)}, params=params)
        found = project.run()
        assert found["rules"]["min_sqnr_db"] is False
        assert (found["error"]["sqnr_db"], found["parity_notes"]["sqnr_db"]) == (None, "fp32 gives nothing but zeros")


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
        columns = set(rows(paths.METRICS / f"{name}.csv")[0])
        fields = {each["field"] for each in _fielded(json.loads(template)) if not each["field"].startswith("<")}
        assert fields - {"rev"} <= columns


def _fielded(tree: Any) -> list[dict[str, Any]]:
    if isinstance(tree, list):
        return [found for each in tree for found in _fielded(each)]
    if not isinstance(tree, dict):
        return []
    return ([tree] if "field" in tree else []) + [found for each in tree.values() for found in _fielded(each)]


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
        off = {"parity": {"abs_tol": None, "mean_tol": None}}
        project.write(*models, {"x": x}, params=off)
        found = project.run()
        assert found["passed"] is False
        assert found["error"]["nonfinite_samples"] == 2
        assert "NaN or infinity on one side only, samples 4, 11" in project.printed()
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
        project.write(SAME, launders, {"x": x}, params={"parity": {"abs_tol": 100, "mean_tol": 100}})
        assert project.run()["passed"] is False
        assert "samples 7" in project.printed()

    def test_the_same_nan_on_both_sides_is_no_difference(self, project: Project) -> None:
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

    def test_own_tolerances_stand_in_place_of_those_for_all(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, params={"parity": {"outputs": {"y": {"abs_tol": 0.05}}}})
        assert project.run()["rules"] == {"nonfinite": True, "abs_tol": True}

    def test_an_unknown_output_is_refused_with_the_nearest_name(self, project: Project) -> None:
        tolerances = {"parity": {"outputs": {"probs": {"abs_tol": 1}}}}
        project.write(self.PROB, self.PROB, {"x": normal(9, 3)}, params=tolerances)
        with pytest.raises(ParamsError, match=r"parity\.outputs\.probs is no output of the model; did you mean prob\?"):
            project.run()

    def test_too_few_samples_cannot_bound_a_flip_rate(self, project: Project) -> None:
        project.write(CLASSIFIER, CLASSIFIER, {"x": normal(298, 3)}, params={"parity": {"max_flip_rate": 0.01}})
        assert project.run()["rules"]["max_flip_rate"] is False
        assert "insufficient samples: 298, while 299 without a flip would prove it" in project.printed()
        project.write(CLASSIFIER, CLASSIFIER, {"x": normal(299, 3)}, params={"parity": {"max_flip_rate": 0.01}})
        assert project.run()["rules"]["max_flip_rate"] is True

    @pytest.mark.parametrize(
        ("rule", "words"),
        [({"max_flip_rate": 0.01}, "no output holds a decision"), ({"max_task_drop": 0.01}, "no labels")],
    )
    def test_a_rule_that_nothing_can_prove_is_no_pass(
        self, project: Project, rule: dict[str, float], words: str
    ) -> None:
        single = graph("(float[N,1] x) => (float[N,1] y) { y = Identity(x) }")
        project.write(single, single, {"x": normal(400, 1)}, params={"parity": rule})
        assert project.run()["passed"] is False
        assert words in project.printed()

    def test_a_threshold_makes_a_score_a_decision(self, project: Project) -> None:
        model = graph("(float[N,1] x) => (float[N,1] p) { p = Sigmoid(x) }")
        moved = graph("(float[N,1] x) => (float[N,1] p) <float[1] c = {0.1}> { s = Add(x, c) p = Sigmoid(s) }")
        x = normal(200, 1)
        project.write(model, moved, {"x": x}, params={"parity": {"threshold": 0.5}})
        found = project.run()
        assert found["decisions"]["flips"] == int(((x > -0.1) & (x < 0)).sum())
        assert found["judged"]["decision"] == "p >= 0.5"

    def test_a_threshold_without_a_score_is_said(self, project: Project) -> None:
        project.write(CLASSIFIER, CLASSIFIER, {"x": normal(9, 3)}, params={"parity": {"threshold": 0.5}})
        assert "parity.threshold is set, but no output has one or two scores" in project.run()["parity_notes"]["note_1"]

    @pytest.mark.parametrize(
        ("own", "key"), [({}, "parity.mean_tol"), ({"y": {"mean_tol": 0.01}}, "parity.outputs.y.mean_tol")]
    )
    def test_a_wider_tolerance_is_advised_where_the_rule_stands(
        self, project: Project, own: dict[str, Any], key: str
    ) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, params={"parity": {"outputs": own}})
        assert f"dvc exp run -S {key}=0.014" in project.run()["parity_notes"].values()

    def test_no_tolerance_is_advised_that_would_accept_garbage(self, project: Project) -> None:
        garbage = graph("(float[N,3] x) => (float[N,3] p) { s = Neg(x) p = Softmax<axis=-1>(s) }")
        project.write(CLASSIFIER, garbage, {"x": 5 * normal(50, 3)})
        assert "_tol=" not in json.dumps(project.run()["parity_notes"])

    def test_unbounded_outputs_under_the_default_tolerance_are_told_so(self, project: Project) -> None:
        large = graph("(float[N,3] x) => (float[N,3] y) <float[1] c = {300.0}> { y = Mul(x, c) }")
        other = graph("(float[N,3] x) => (float[N,3] y) <float[1] c = {300.9}> { y = Mul(x, c) }")
        project.write(large, other, {"x": normal(40, 3)})
        found = project.run()
        assert "made for probabilities, says little" in found["parity_notes"]["note_1"]
        assert found["parity_notes"]["try_1"] == (
            "dvc exp run -S parity.abs_tol=null -S parity.mean_tol=null -S parity.min_sqnr_db=20"
        )
        project.params({"parity": {"abs_tol": None, "mean_tol": None, "min_sqnr_db": 20}})
        assert project.run()["passed"] is True


class TestKindsOfModel:
    def test_a_fixed_batch_is_fed_as_it_is_and_the_tail_is_said(self, project: Project) -> None:
        fixed = graph("(float[4,3] x) => (float[4,3] y) { y = Identity(x) }")
        project.write(fixed, fixed, {"x": normal(10, 3)})
        found = project.run()
        assert (found["judged"]["batch"], found["judged"]["samples"]) == (4, 8)
        assert found["batch_effect"]["max_abs"] is None
        notes = found["parity_notes"]
        assert notes["note_1"] == "served in batches of 4, not of serving.batch_size 1: the model prescribes it"
        assert "2 samples did not fill the model's fixed batch of 4" in notes["note_2"]

    def test_feeds_with_state_on_another_axis(self, project: Project) -> None:
        cell = graph(
            "(float[1,5] x, float[2,1,5] h) => (float[1,5] y, float[2,1,5] hn) <int64[1] a = {0}> "
            "{ hn = Add(h, x) y = ReduceSum<keepdims=0>(hn, a) }"
        )
        project.write(cell, cell, {"x": normal(8, 1, 5), "h": normal(8, 2, 1, 5)}, layout="feeds")
        found = project.run()
        assert (found["judged"]["samples"], found["passed"]) == (8, True)
        assert set(found["outputs"]) == {"y", "hn"}

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
        found = project.run()
        assert (found["decisions"]["flips"], found["decisions"]["confident_flips"]) == (0, 0)
        assert found["task"]["fp32"] == 1.0
        assert "probabilities" in project.printed()

    def test_an_empty_output(self, project: Project) -> None:
        empty = graph("(float[N,3] x) => (float[N,0] y) <int64[1] a = {0}, int64[1] d = {1}> { y = Slice(x, a, a, d) }")
        project.write(empty, empty, {"x": normal(4, 3)})
        assert project.run()["passed"] is True
        assert "empty on both sides" in project.printed()

    def test_whole_numbers_alone_must_be_equal_or_have_a_flip_rate(self, project: Project) -> None:
        model = graph("(float[N,3] x) => (int64[N] y) { y = ArgMax<axis=1, keepdims=0>(x) }")
        other = graph(
            "(float[N,3] x) => (int64[N] y) <float[3] c = {0.05, 0.0, 0.0}> "
            "{ s = Add(x, c) y = ArgMax<axis=1, keepdims=0>(s) }"
        )
        project.write(model, other, {"x": normal(500, 3)})
        assert project.run()["rules"] == {"equal": False}
        project.params({"parity": {"max_flip_rate": 0.1}})
        assert project.run()["rules"] == {"max_flip_rate": True}

    def test_a_number_of_boxes_that_depends_on_the_values(self, project: Project) -> None:
        boxes = "(float[1,6] x) => (int64[2,K] y) <float[1] t = {%s}> { m = Greater(x, t) y = NonZero(m) }"
        project.write(graph(boxes % 0.0), graph(boxes % 0.1), {"x": normal(60, 6)})
        found = project.run()
        assert found["rules"]["shape"] is False
        assert "other shapes for" in project.printed()

    def test_numbers_with_labels_get_r2(self, project: Project) -> None:
        model = graph("(float[N,3] x) => (float[N,1] y) <int64[1] a = {1}> { y = ReduceSum<keepdims=1>(x, a) }")
        x = normal(60, 3)
        project.write(model, model, {"x": x}, x.sum(axis=1) + normal(60) / 10)
        found = project.run()
        assert (found["task"]["metric"], found["task"]["fp32"]) == ("r2", found["task"]["int8"])
        assert 0.99 < found["task"]["fp32"] < 1


class TestErrors:
    def test_missing_files_name_the_stage_that_makes_them(self, project: Project) -> None:
        with pytest.raises(MissingInputError, match=r"^Missing artifacts/model\.onnx\. Run export first\.$"):
            project.run()
        project.write(SAME, SAME, {"x": normal(4, 3)})
        paths.INT8_MODEL.unlink()
        with pytest.raises(MissingInputError, match=r"^Missing artifacts/model\.int8\.onnx\. Run quantize first\.$"):
            project.run()

    def test_models_that_are_no_pair(self, project: Project) -> None:
        project.write(SAME, CLASSIFIER, {"x": normal(4, 3)})
        with pytest.raises(StageError, match=r"output 'y' is tensor.float. in artifacts/model.onnx and missing in"):
            project.run()

    def test_a_batch_that_no_sample_fills(self, project: Project) -> None:
        fixed = graph("(float[4,3] x) => (float[4,3] y) { y = Identity(x) }")
        project.write(fixed, fixed, {"x": normal(3, 3)})
        with pytest.raises(StageError, match="takes batches of 4, and artifacts/eval has 3 samples"):
            project.run()


class TestCommand:
    def test_other_tolerances_are_tried_and_nothing_is_written(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)})
        missed = command("--abs-tol", "0.02")
        assert missed.returncode == 1
        assert "abs_tol of y is 0.03, the limit 0.02" in missed.stdout
        assert command("--abs-tol", "0.06", "--mean-tol", "0.02").returncode == 0
        assert not paths.METRICS.exists()

    @pytest.mark.parametrize("value", ["-1", "nan", "much"])
    def test_a_tolerance_that_is_none_is_wrong_usage(self, project: Project, value: str) -> None:
        found = command(f"--abs-tol={value}")
        assert found.returncode == 2
        assert "--abs-tol" in found.stderr

    def test_a_miss_is_a_metric_and_no_failure(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(9, 3)}, params={"parity": {"abs_tol": 1e-6}})
        found = command()
        assert (found.returncode, found.stderr) == (0, "")
        assert json.loads(paths.PARITY.read_text(encoding="utf-8"))["passed"] is False

    def test_sigterm_leaves_no_metrics(self, project: Project) -> None:
        project.write(SAME, SHIFTED, {"x": normal(400_000, 3)})
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.parity"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
        assert process.returncode == 143
        assert said == "Terminated: nothing half-written is left behind.\n"
        assert not list(Path().glob("metrics/*"))
