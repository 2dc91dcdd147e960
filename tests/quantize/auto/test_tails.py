"""The largest difference in three times as many samples, by its outliers, or by the noise of probabilities."""

import numpy as np
import pytest

from stages.common.compare.comparison import OutputPair
from stages.quantize.auto.tails import Tails, largest_move, log_odds_noise, tail_factor


def test_a_tail_that_one_sample_makes_grows_with_their_number() -> None:
    even = np.ones(90)
    heavy = np.where(np.arange(90) == 7, 10.0, 1.0)
    assert tail_factor(even) == pytest.approx(1 + 90**-0.5)
    assert tail_factor(heavy) == pytest.approx(10 / 4 * (1 + 90**-0.5))
    assert tail_factor(heavy, 9) == pytest.approx((10 / 4) ** 2 * (1 + 90**-0.5))
    assert tail_factor(np.zeros(90)) == pytest.approx(1 + 90**-0.5)
    assert tail_factor(np.array([1.0, 5.0, 1.0, 2.0])) == 1.5
    assert tail_factor(np.array([5.0])) == 2


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


@pytest.mark.parametrize("noise", [0.01, 0.3, 2.0, 10.0])
def test_no_probability_moves_further_than_its_noise_allows(noise: float) -> None:
    log_odds = np.linspace(-12, 12, 2001)
    moved = sigmoid(log_odds + noise) - sigmoid(log_odds)
    assert moved.max() == pytest.approx(largest_move(np.full(5, noise)), rel=1e-3)


def test_noise_is_that_of_the_most_likely_class_where_it_is_not_certain() -> None:
    reference = np.array([[0.6, 0.4], [1.0, 0.0], [0.2, 0.8]])
    candidate = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    np.testing.assert_allclose(log_odds_noise(reference, candidate), [np.log(1.5), 0], atol=1e-12)
    assert largest_move(np.zeros(0)) == 0


def test_with_more_rows_a_higher_quantile_of_the_noise_counts() -> None:
    def noise(rows: int) -> np.ndarray:
        return np.linspace(0, 1, rows)

    assert largest_move(noise(11)) == pytest.approx(np.tanh(0.9 / 4))
    assert largest_move(noise(26)) == pytest.approx(np.tanh((1 - 0.4 / np.sqrt(26)) / 4))
    assert largest_move(noise(1001)) == pytest.approx(np.tanh(0.95 / 4))


def factor(reference: np.ndarray, candidate: np.ndarray, *, clips: bool = False) -> float:
    tails = Tails(clips=clips)
    pair = OutputPair(np.arange(len(reference)), {"y": reference}, {"y": candidate})
    assert list(tails.watch([pair])) == [pair]
    return tails.factors()["y"]


def test_samples_far_from_the_edge_tell_what_one_on_it_would_do() -> None:
    confident = sigmoid(np.linspace(4, 9, 100))[:, None]
    noisy = sigmoid(np.linspace(4, 9, 100) - 0.4)[:, None]
    seen = float(np.abs(noisy - confident).max())
    assert seen < 0.01
    assert seen * factor(confident, noisy) == pytest.approx(np.tanh(0.1), rel=1e-6)
    assert factor(np.full((100, 1), 0.5), np.full((100, 1), 0.6)) == pytest.approx(1.1)


def test_other_outputs_grow_as_their_outliers_do() -> None:
    reference = np.arange(90.0)[:, None]
    moved = np.where(np.arange(90) == 7, 10.0, 1.0)
    assert factor(reference, reference + moved[:, None]) == pytest.approx(tail_factor(moved))


def test_outliers_count_for_probabilities_where_ranges_clip() -> None:
    reference = np.full((90, 1), 0.5)
    candidate = reference + np.where(np.arange(90) == 7, 0.1, 1e-3)[:, None]
    assert factor(reference, candidate) == pytest.approx(1 + 90**-0.5)
    assert factor(reference, candidate, clips=True) == pytest.approx(tail_factor(candidate[:, 0] - 0.5, 6))
