"""Every figure of the comparison equals an independent computation, and statistics merge in any order."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import r2_score, roc_auc_score

from stages.common.compare.comparison import Comparison, MismatchError, OutputPair, compare
from stages.common.compare.decided import CONFIDENT, needed, upper_bound
from stages.common.compare.output import OVERFLOW, OutputComparison
from stages.common.compare.parts import Parts
from stages.common.compare.summaries import RELATIVE_ERROR, WORST_KEPT, BottomK, QuantileSketch
from stages.common.decisions import Decider, choose

SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)


def probabilities(count: int, classes: int, seed: int) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0, 2, (count, classes))
    raised = np.exp(scores)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)


def two_models(count: int = 400, classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of fp32 and INT8, and labels that both models predict well."""
    random = np.random.default_rng(seed + 100)
    before = probabilities(count, classes, seed)
    noisy = np.log(before) + random.normal(0, 0.3, before.shape)
    after = np.exp(noisy) / np.exp(noisy).sum(axis=1, keepdims=True)
    labels = np.where(random.random(count) < 0.8, before.argmax(axis=1), random.integers(0, classes, count))
    return before, after.astype(np.float32), labels


def compared(before: np.ndarray, after: np.ndarray, labels: np.ndarray | None = None) -> Comparison:
    comparison = Comparison(choose({"p": before}, labels))
    comparison.update(np.arange(len(before)), {"p": before}, {"p": after}, labels)
    return comparison


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The figures of a tree, each with its path."""
    if not isinstance(tree, dict | list | tuple):
        yield name, tree
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(value, f"{name}.{key}")


class TestFiguresEqualAnIndependentComputation:
    before, after, labels = two_models()
    comparison = compared(before, after, labels)
    output = comparison.outputs["p"]
    raw, _ = output.figures()
    decisions, probabilities = comparison.decisions.figures()
    difference = after.astype(np.float64) - before.astype(np.float64)

    def test_absolute_error(self) -> None:
        absolute = np.abs(self.difference)
        assert self.output.largest == absolute.max()
        assert self.output.total / self.output.compared == pytest.approx(absolute.mean(), rel=1e-12)
        for share in SHARES:
            exact = np.quantile(absolute, share, method="lower")
            assert self.output.quantile(share) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)

    def test_relative_error_is_scaled_by_the_range_of_the_reference(self) -> None:
        span = float(self.before.max()) - float(self.before.min())
        assert self.raw["max_of_range"] == pytest.approx(np.abs(self.difference).max() / span, rel=1e-12)

    def test_sqnr(self) -> None:
        signal = np.square(self.before.astype(np.float64)).sum()
        expected = 10 * np.log10(signal / np.square(self.difference).sum())
        assert self.output.sqnr_db == pytest.approx(expected, rel=1e-12)

    def test_nrmse(self) -> None:
        expected = np.sqrt(np.square(self.difference).mean()) / self.before.astype(np.float64).std()
        assert self.output.nrmse == pytest.approx(expected, rel=1e-12)

    def test_nrmse_is_free_of_offset_and_scale(self) -> None:
        moved = compared(self.before * 1e3 + 250_000.0, self.after * 1e3 + 250_000.0).outputs["p"]
        assert moved.nrmse == pytest.approx(self.output.nrmse, rel=0.02)  # float32 rounds the offset

    def test_cosine(self) -> None:
        from scipy.spatial.distance import cosine

        pairs = zip(self.before.astype(np.float64), self.after.astype(np.float64), strict=True)
        expected = np.array([1 - cosine(x, y) for x, y in pairs])
        assert self.raw["min_cosine"] == pytest.approx(expected.min(), abs=1e-12)
        assert self.raw["mean_cosine"] == pytest.approx(expected.mean(), abs=1e-12)
        assert self.raw["min_cosine_sample"] == expected.argmin()

    def test_flips_and_their_margins(self) -> None:
        flipped = self.before.argmax(axis=1) != self.after.argmax(axis=1)
        ordered = np.sort(self.before.astype(np.float64), axis=1)
        confident = flipped & (ordered[:, -1] - ordered[:, -2] >= CONFIDENT)
        flips = self.comparison.decisions
        assert flipped.sum() > 5
        assert (flips.flips, flips.confident, flips.ties) == (flipped.sum(), confident.sum(), 0)
        assert self.decisions["agreement"] == pytest.approx(1 - flipped.mean())
        assert flips.first == np.flatnonzero(flipped)[:20].tolist()

    def test_flip_bound_is_that_of_clopper_and_pearson(self) -> None:
        flips = self.comparison.decisions
        expected = stats.binomtest(flips.flips, flips.count, alternative="less").proportion_ci(0.95, "exact").high
        assert self.decisions["flip_rate_high95"] == pytest.approx(expected, rel=1e-9)

    def test_pixels_prove_no_more_than_their_images(self) -> None:
        """The same decisions at each of 100 pixels: bounds and tests are those of one decision per image."""
        sides = self.before, self.after, self.labels
        single, tiled = Comparison(Decider(None, "p", "probabilities")), Comparison(Decider(None, "p", "probabilities"))
        for comparison, pixels in ((single, 1), (tiled, 100)):
            before, after, labels = (np.repeat(side[:, None], pixels, axis=1) for side in sides)
            comparison.update(np.arange(len(labels)), {"p": before}, {"p": after}, labels)
        assert tiled.decisions.flips == 100 * single.decisions.flips > 0
        for key in ("flip_rate_high95", "agreement"):
            assert tiled.figures()["decisions"][key] == pytest.approx(single.figures()["decisions"][key])
        assert tiled.accuracy.p_value == single.accuracy.p_value
        assert "(McNemar p = " in single.figures()["task"]["chance"]
        assert re.search(
            r" in int8 only, by sample \d+ worse and \d+ better: .*\(sign test", tiled.figures()["task"]["chance"]
        )

    def test_top_five(self) -> None:
        best = np.argsort(-self.after, axis=1)[:, :5]
        expected = (best == self.before.argmax(axis=1)[:, None]).any(axis=1).mean()
        assert self.decisions["top5_agreement"] == pytest.approx(expected)

    def test_kullback_leibler(self) -> None:
        expected = stats.entropy(self.before.astype(np.float64), self.after.astype(np.float64), axis=1)
        assert self.probabilities["kl_mean"] == pytest.approx(expected.mean(), rel=1e-5)

    def test_confidence_error(self) -> None:
        for side, array in enumerate((self.before, self.after)):
            confidence, right = array.max(axis=1).astype(np.float64), array.argmax(axis=1) == self.labels
            expected = 0.0
            for low in np.arange(15) / 15:
                inside = (confidence >= low) & (confidence < low + 1 / 15)
                if inside.any():
                    expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
            assert self.probabilities[("ece_fp32", "ece_int8")[side]] == pytest.approx(expected, rel=1e-6)

    def test_accuracy_and_mcnemar(self) -> None:
        right = [array.argmax(axis=1) == self.labels for array in (self.before, self.after)]
        only = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        comparison, task = self.comparison.accuracy, self.comparison.figures()["task"]
        assert (task["fp32"], task["int8"]) == pytest.approx((right[0].mean(), right[1].mean()), rel=1e-5)
        assert (comparison.only_reference, comparison.only_candidate) == only
        assert comparison.p_value == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue, rel=1e-9)

    def test_probabilities_are_recognized(self) -> None:
        assert self.output.kind == "probabilities"
        assert self.comparison.decider == Decider(scores="p", kind="probabilities")


def test_regression_figures() -> None:
    random = np.random.default_rng(1)
    labels = random.normal(100, 20, 300)
    before = (labels + random.normal(0, 5, 300)).astype(np.float32)[:, None]
    after = before + random.normal(0, 2, before.shape).astype(np.float32)
    comparison = compared(before, after, labels)
    assert not comparison.decider.decides
    for side, array in enumerate((before, after)):
        assert comparison.regression.r2(side) == pytest.approx(
            r2_score(labels, array[:, 0].astype(np.float64)), rel=1e-9
        )
        expected = np.abs(array[:, 0].astype(np.float64) - labels).mean()
        assert comparison.regression.mean_absolute(side) == pytest.approx(expected, rel=1e-9)
    rho = stats.spearmanr(before[:, 0], after[:, 0]).statistic
    assert comparison.outputs["p"].rank_correlation == pytest.approx(rho, rel=1e-9)
    change = comparison.regression.change95()
    assert change is not None
    assert change[0] < r2_score(labels, after[:, 0]) - r2_score(labels, before[:, 0]) < change[1]


def test_auc_of_binary_scores() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 500)
    before = np.clip(0.5 * labels + random.normal(0.25, 0.2, 500), 0, 1).astype(np.float32)[:, None]
    after = np.clip(before + random.normal(0, 0.1, before.shape), 0, 1).astype(np.float32)
    comparison = compared(before, after, labels)
    for side, array in enumerate((before, after)):
        assert comparison.auc.area(side) == pytest.approx(roc_auc_score(labels, array[:, 0]), abs=1e-12)
    change = comparison.auc.change95()
    assert change is not None
    assert change[0] < roc_auc_score(labels, after[:, 0]) - roc_auc_score(labels, before[:, 0]) < change[1]


@pytest.mark.parametrize("offset", [0.0, 1000.0, 1e6])
def test_auc_is_exact_whatever_the_size_of_the_scores(offset: float) -> None:
    random = np.random.default_rng(4)
    labels = random.integers(0, 2, 2000)
    scores = (labels * 2 + random.normal(0, 1, 2000) + offset)[:, None]
    comparison = Comparison(Decider(binary="p"))
    comparison.update(np.arange(2000), {"p": scores}, {"p": scores}, labels)
    expected = roc_auc_score(labels, scores[:, 0])
    assert expected > 0.9
    assert comparison.auc.area(0) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_merging_any_split_in_any_order_gives_what_one_pass_gives(data: st.DataObject) -> None:
    before, after, labels = two_models(count=data.draw(st.integers(2, 300)), seed=data.draw(st.integers(0, 5)))
    after[data.draw(st.integers(0, len(after) - 1)), 0] = np.nan
    whole = compared(before, after, labels)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(before)), max_size=6)))
    parts = np.split(np.arange(len(before)), cuts)
    merged = Comparison(whole.decider)
    for place in data.draw(st.permutations(range(len(parts)))):
        part = Comparison(whole.decider)
        rows = parts[place]
        part.update(rows, {"p": before[rows]}, {"p": after[rows]}, labels[rows])
        merged.merge(part)
    one, other = whole.outputs["p"], merged.outputs["p"]
    assert merged.samples == whole.samples
    assert merged.accuracy == whole.accuracy
    assert repr(one.worst) == repr(other.worst)  # NaN is not equal to NaN
    for share in SHARES:
        assert one.quantile(share) == other.quantile(share)
    np.testing.assert_array_equal(one.pairs.samples, other.pairs.samples)
    np.testing.assert_array_equal(one.pairs.values, other.pairs.values)
    mine, theirs = (
        dict(leaves([comparison.outputs["p"].figures()[0], comparison.decisions.figures()]))
        for comparison in (whole, merged)
    )
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        exact = not isinstance(value, float)
        assert theirs[name] == (value if exact else pytest.approx(value, rel=1e-12, abs=1e-15)), name


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 3))
def test_the_batches_of_a_stream_do_not_matter(count: int, size: int, seed: int) -> None:
    before, after, labels = two_models(count=count, seed=seed)
    parts = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
    comparison = compare(
        (OutputPair(rows, {"p": before[rows]}, {"p": after[rows]}) for rows in parts), lambda rows: labels[rows]
    )
    whole = compared(before, after, labels)
    assert comparison.figures() == whole.figures()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e30, allow_subnormal=False), min_size=1, max_size=300), st.sampled_from(SHARES))
def test_quantiles_keep_the_bound_that_they_state(values: list[float], share: float) -> None:
    array = np.array([value if value > 1e-17 else 0.0 for value in values])
    sketch = QuantileSketch()
    sketch.update(array)
    exact = np.quantile(array, share, method="lower")
    assert sketch.quantile(share) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001, abs=0)
    assert sum(count for _, _, count in sketch.histogram(4)) == len(values) == sketch.count


def test_no_quantile_is_above_the_maximum() -> None:
    comparison = compared(np.zeros((50, 1)), np.full((50, 1), 0.7))
    assert comparison.outputs["p"].quantile(0.5) == 0.7


def test_a_sample_is_uniform_over_the_stream_and_over_positions() -> None:
    sample = BottomK()
    for start in range(0, 100_000, 1000):
        rows = np.arange(start, start + 1000)
        sample.update(rows, np.broadcast_to(np.arange(10.0), (1000, 10)))
    assert sample.values is not None
    assert stats.kstest(sample.samples / 100_000, "uniform").pvalue > 0.001
    assert stats.chisquare(np.bincount(sample.values[:, 0].astype(int))).pvalue > 0.001
    assert len(set(sample.samples.tolist())) > 1950  # not whole samples at once


def test_regressions_and_binary_scores_merge() -> None:
    random = np.random.default_rng(3)
    before, after = random.random((90, 1)), random.random((90, 1))
    for labels, decider in (
        (random.normal(size=90) + 1e6, Decider()),
        (random.integers(0, 2, 90), Decider(binary="p")),
    ):
        whole, merged = Comparison(decider), Comparison(decider)
        whole.update(np.arange(90), {"p": before}, {"p": after}, labels)
        for rows in np.split(np.arange(90), [7, 50])[::-1]:
            part = Comparison(decider)
            part.update(rows, {"p": before[rows]}, {"p": after[rows]}, labels[rows])
            merged.merge(part)
        if decider.binary:
            assert merged.auc.area(1) == whole.auc.area(1) is not None
            assert merged.auc.change95() == whole.auc.change95() is not None
        else:
            assert (merged.regression.r2(1) or 0.0) == pytest.approx(whole.regression.r2(1), rel=1e-9)
            assert merged.regression.change95() == pytest.approx(whole.regression.change95(), rel=1e-9)
            assert merged.outputs["p"].rank_correlation == whole.outputs["p"].rank_correlation is not None


@pytest.mark.filterwarnings("error")
@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([np.float16, np.float32, np.float64]), st.sampled_from(["y", "logits"]))
def test_no_value_is_too_strange(data: st.DataObject, dtype: type, name: str) -> None:
    shape = data.draw(st.sampled_from([(1, 1), (3, 4), (2, 7), (2, 3, 2), (2, 3, 2, 2), (2, 2, 3, 1), (4,), (2, 0)]))
    before, after = (data.draw(arrays(dtype, shape)) for _ in range(2))
    labels = data.draw(st.sampled_from([None, np.arange(shape[0]), np.zeros(shape[0], dtype=np.int64)]))
    comparison = Comparison(choose({name: before}, labels))
    comparison.update(np.arange(shape[0]), {name: before}, {name: after}, labels)
    output = comparison.outputs[name]
    assert output.nonfinite_samples <= shape[0]
    assert output.largest >= (output.quantile(0.5) or 0.0)
    comparison.figures()


@pytest.mark.filterwarnings("error")
def test_noise_beyond_what_float64_holds_has_no_figure_but_a_reason() -> None:
    figures = compared(np.array([[1.0, 2.0]]), np.array([[1e200, 2.0]])).figures()
    assert figures["outputs"]["p"]["sqnr_db"] is None
    assert figures["null_reasons"]["outputs.p.sqnr_db"] == OVERFLOW


class TestNotFinite:
    def test_a_nan_on_one_side_is_counted_and_named_and_spoils_no_other_figure(self) -> None:
        before, after = np.ones((5, 3), np.float32), np.full((5, 3), 1.5, np.float32)
        before[1, 0] = after[3, 2] = np.nan
        output = compared(before, after).outputs["p"]
        assert (output.nonfinite_samples, output.nonfinite_first) == (2, [1, 3])
        assert (output.compared, output.total) == (13, 6.5)
        assert [sample.error for sample in output.worst.samples[:2]] == [math.inf, math.inf]
        assert output.directions == 3

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_equal_ones_agree(self, value: float) -> None:
        before = np.array([[1.0, value]], np.float32)
        output = compared(before, before.copy()).outputs["p"]
        assert (output.nonfinite_samples, output.equal) == (0, 2)

    def test_infinities_of_another_sign_differ(self) -> None:
        output = compared(np.array([[np.inf, 1]]), np.array([[-np.inf, 1]])).outputs["p"]
        assert output.nonfinite_samples == 1


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    samples=st.integers(1, 9),
    cuts=st.sets(st.integers(1, 8)),
)
def test_the_error_of_each_part_does_not_depend_on_how_the_samples_are_cut(
    shape: list[int], samples: int, cuts: set[int]
) -> None:
    before = np.random.default_rng(samples).normal(size=(samples, *shape))
    after = before + np.random.default_rng(0).normal(size=before.shape) / 10
    whole = Parts()
    for one, other in zip(np.split(before, sorted(cuts)), np.split(after, sorted(cuts)), strict=True):
        part = Parts()
        if len(one):
            part.update(one, other)
        whole.merge(part)
    if max(shape) == 1:
        assert (whole.axis, whole.nrmse, whole.std) == (None, None, None)
        return
    assert whole.axis == max(at for at, length in enumerate((0, *shape)) if length == min(set(shape) - {1}))
    others = tuple(at for at in range(before.ndim) if at != whole.axis)
    std = before.std(axis=others)
    assert whole.std == pytest.approx(std)
    if std.all():
        assert whole.nrmse == pytest.approx(np.sqrt(np.square(after - before).mean(axis=others)) / std)


def test_samples_with_other_axes_have_no_parts() -> None:
    parts = Parts()
    parts.update(np.ones((2, 3)), np.ones((2, 3)))
    assert (parts.axis, parts.nrmse) == (1, [None, None, None])
    parts.update(np.ones((2, 4)), np.ones((2, 4)))
    assert (parts.axis, parts.nrmse) == (None, None)


class TestOtherKindsOfOutput:
    def test_integers_do_not_wrap(self) -> None:
        before, after = np.array([[3], [7]], np.uint8), np.array([[5], [7]], np.uint8)
        output = OutputComparison("ids", "|u1")
        output.update(np.arange(2), before, after)
        assert output.equal == 1
        assert (output.worst.samples[0].reference, output.worst.samples[0].candidate) == (3, 5)

    @pytest.mark.parametrize("values", [["a", "b"], [True, False]])
    def test_text_and_booleans_are_compared_by_equality(self, values: list[object]) -> None:
        before = np.array(values, dtype=object if isinstance(values[0], str) else bool)
        comparison = Comparison(Decider(label="label"))
        comparison.update(np.arange(2), {"label": before}, {"label": before[::-1].copy()})
        assert comparison.outputs["label"].equal == 0
        assert (comparison.decisions.flips, comparison.decisions.margins_known) == (2, False)

    def test_empty_tensors_and_scalars(self) -> None:
        comparison = Comparison()
        for name, array in (("none", np.empty((4, 0), np.float32)), ("one", np.arange(4, dtype=np.float32))):
            comparison.update(np.arange(4), {name: array}, {name: array.copy()})
        outputs = comparison.figures()["outputs"]
        assert (outputs["none"]["mean_abs"], outputs["one"]["mean_abs"]) == (None, 0.0)
        assert outputs["one"]["min_cosine"] is None

    def test_a_shape_that_depends_on_the_values_is_counted_separately(self) -> None:
        output = OutputComparison("boxes", "<f4")
        output.update(np.array([4]), np.zeros((1, 3, 4), np.float32), np.zeros((1, 2, 4), np.float32))
        assert (output.mismatched, output.values) == (1, 0)
        assert output.mismatch == "sample 4: [3, 4] in fp32, [2, 4] in int8"

    def test_other_names_or_kinds_are_refused(self) -> None:
        array = np.zeros((1, 2), np.float32)
        with pytest.raises(MismatchError, match="only one of them has the output b"):
            Comparison().update(np.arange(1), {"a": array, "b": array}, {"a": array})
        with pytest.raises(MismatchError, match="float32 in one, int64 in the other"):
            Comparison().update(np.arange(1), {"a": array}, {"a": array.astype(np.int64)})

    def test_only_the_worst_are_kept_and_ties_go_to_the_lower_index(self) -> None:
        output = OutputComparison("y", "<f8")
        before = np.zeros((100, 1))
        after = np.repeat(np.arange(50.0), 2)[:, None]
        for rows in np.split(np.random.default_rng(0).permutation(100), 5):
            output.update(rows, before[rows], after[rows])
        assert [worst.sample for worst in output.worst.samples] == [
            sample for value in range(49, 49 - WORST_KEPT // 2, -1) for sample in (2 * value, 2 * value + 1)
        ]


@pytest.mark.parametrize(("hits", "rate", "count"), [(0, 0.01, 299), (1, 0.01, 473), (0, 0.001, 2995), (10, 0.02, 845)])
def test_samples_that_bound_a_flip_rate(hits: int, rate: float, count: int) -> None:
    bounds = upper_bound(hits, count), upper_bound(hits, count - 1)
    assert bounds[0] is not None and bounds[1] is not None
    assert bounds[0] <= rate < bounds[1]
    if hits == 0:
        assert needed(rate) == count
