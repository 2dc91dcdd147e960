"""Which output decides, what it decides and by what margin, on arrays and on streams cut anywhere."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.compare.comparison import Comparison, OutputPair, compare
from stages.common.decisions import are_log_probabilities, choose, probability_axes
from tests.common.test_compare import compared, probabilities


class TestWhichOutputDecides:
    scores = probabilities(6, 3, 0)
    label = scores.argmax(axis=1)

    def test_the_label_output_with_margins_from_the_probabilities(self) -> None:
        decider = choose({"boxes": np.zeros((6, 4), np.float32), "p": self.scores, "label": self.label})
        assert (decider.label, decider.scores, decider.kind) == ("label", "p", "probabilities")

    def test_logarithms_of_probabilities(self) -> None:
        outputs = {"y": np.log(self.scores)}
        decider = choose(outputs)
        assert decider.scores == "y"
        margins, best = decider.read(outputs).margins, np.sort(self.scores, axis=1)
        assert margins is not None
        np.testing.assert_allclose(margins, best[:, -1] - best[:, -2], rtol=1e-5, atol=1e-7)

    def test_raw_scores_only_if_something_says_so(self) -> None:
        raw = {"y": 10 * self.scores}
        assert not choose(raw).decides
        assert choose(raw, self.label).scores == "y"
        assert choose(raw, classifier=True).scores == "y"
        assert choose({"logits": raw["y"]}).scores == "logits"
        assert not choose(raw, np.linspace(0, 1, 6)).decides

    def test_trailing_axes_of_one_do_not_count(self) -> None:
        assert choose({"p": self.scores.reshape(6, 3, 1, 1)}).scores == "p"

    def test_rows_along_the_last_axis(self) -> None:
        tokens = self.scores.reshape(2, 3, 3)
        comparison = Comparison(choose({"p": tokens}))
        comparison.update(np.array([7, 9]), {"p": tokens}, {"p": tokens[..., ::-1]})
        changed = np.flatnonzero(self.label != 2 - self.label)
        assert (comparison.decisions.count, comparison.decisions.first) == (6, [7 if row < 3 else 9 for row in changed])

    def test_a_threshold_goes_before_the_label(self) -> None:
        outputs = {"label": np.array([0, 1, 1]), "p": np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], np.float32)}
        decider = choose(outputs, threshold=0.7)
        decided = decider.read(outputs)
        np.testing.assert_array_equal(decided.decisions, [False, False, True])
        assert decided.margins is not None
        np.testing.assert_allclose(decided.margins, np.array([1.2, 0.2, 0.2]), rtol=1e-6)

    def test_a_tie_is_not_a_flip(self) -> None:
        before, after = np.array([[0.5, 0.5]]), np.array([[0.49, 0.51]])
        comparison = compared(before, after)
        assert (comparison.decisions.flips, comparison.decisions.ties) == (0, 1)


class TestMaps:
    """Scores at each place of an image, [n, classes, height, width], or with the classes last."""

    logits = np.random.default_rng(0).normal(size=(6, 4, 8, 5)).astype(np.float32)
    label = logits.argmax(axis=1)
    raised = np.exp(logits)
    scores = raised / raised.sum(axis=1, keepdims=True)

    def test_raw_scores_decide_by_labels_of_one_class_per_place(self) -> None:
        assert not choose({"logits": self.logits}).decides
        assert not choose({"logits": self.logits}, self.label[:, 0, 0]).decides
        for maps, axis in ((self.logits, 1), (np.moveaxis(self.logits, 1, -1), -1)):
            decider = choose({"y": maps}, self.label)
            assert (decider.scores, decider.axis) == ("y", axis)
            np.testing.assert_array_equal(decider.read({"y": maps}).decisions, self.label.reshape(-1))

    def test_params_that_say_that_the_model_decides_mean_the_shorter_axis(self) -> None:
        for maps, axis in ((self.logits, 1), (np.moveaxis(self.logits, 1, -1), -1)):
            decider = choose({"y": maps}, classifier=True)
            np.testing.assert_array_equal(decider.read({"y": maps}).decisions, self.label.reshape(-1))
            assert decider.axis == axis

    def test_probabilities_and_their_logarithms_are_found_along_either_axis(self) -> None:
        for maps, axis in ((self.scores, 1), (np.moveaxis(self.scores, 1, -1), -1)):
            assert probability_axes(maps) == (axis,)
            assert probability_axes(np.log(maps), are_log_probabilities) == (axis,)
            decided = choose({"y": maps}).read({"y": maps})
            np.testing.assert_array_equal(decided.decisions, self.label.reshape(-1))
            assert compared(maps, maps).outputs["p"].kind == "probabilities"
            assert compared(self.logits, self.logits).outputs["p"].kind == "float"

    def test_positions_after_the_classes(self) -> None:
        steps = self.scores[..., 0]
        assert choose({"y": steps}).axis == 1
        assert choose({"y": self.logits[..., 0]}, self.label[..., 0]).axis == 1
        assert choose({"y": self.logits[..., 0]}, classifier=True).axis == -1

    def test_a_threshold_decides_each_pixel_of_a_mask(self) -> None:
        mask = self.scores[:, 1]
        for maps in (mask[:, None], mask[..., None]):
            decided = choose({"mask": maps}, threshold=0.5).read({"mask": maps})
            np.testing.assert_array_equal(decided.decisions, (mask >= 0.5).reshape(-1))

    def test_pixels_are_no_probabilities(self) -> None:
        gray = np.random.default_rng(0).uniform(size=(6, 1, 8, 5)).astype(np.float32)
        assert compared(gray, gray).outputs["p"].kind == "float"
        assert not choose({"y": gray}).decides

    @given(st.lists(st.integers(1, 5), max_size=4, unique=True))
    def test_the_cut_of_the_stream_does_not_matter(self, cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), 6]
        moved = self.scores[:, ::-1]
        pairs = [
            OutputPair(np.arange(start, end), {"p": self.scores[start:end]}, {"p": moved[start:end]})
            for start, end in pairwise(edges)
        ]
        figures = compare(pairs).figures()
        assert figures["decisions"] == compared(self.scores, moved).figures()["decisions"]
        assert figures["decisions"]["count"] == 240


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_how_a_stream_is_cut_does_not_change_what_decides(data: st.DataObject) -> None:
    """The first rows look like probabilities with labels of 0; only later rows show what the output is."""
    count = data.draw(st.integers(1, 400))
    turn = data.draw(st.integers(0, count))
    scores = probabilities(count, 3, 0) * np.where(np.arange(count) < turn, 1.0, 7.0)[:, None].astype(np.float32)
    labels = np.where(np.arange(count) < turn, 0, np.arange(count) % data.draw(st.integers(1, 9)))
    deciders = set()
    for _ in range(3):
        cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
        pairs = [
            OutputPair(rows, {"y": scores[rows]}, {"y": scores[rows]}) for rows in np.split(np.arange(count), cuts)
        ]
        deciders.add(compare((pair for pair in pairs if len(pair.indices)), lambda rows: labels[rows]).decider)
    assert len(deciders) == 1


def test_what_decides_is_found_where_shapes_vary() -> None:
    pairs = [OutputPair(np.array([row]), {"p": array}, {"p": array}) for row, array in enumerate(ragged())]
    comparison = compare(pairs)
    assert (comparison.samples, comparison.decider.scores, comparison.decisions.count) == (
        6,
        "p",
        sum(2 + row for row in range(6)),
    )


def ragged() -> list[np.ndarray]:
    """Probabilities of three classes for 2, 3, ... positions."""
    return [probabilities(2 + row, 3, row)[None] for row in range(6)]
