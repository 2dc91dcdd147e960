"""The robust z-score on known distributions."""

import numpy as np
import pytest

from stages.parity.features import robust_z


def test_of_normal_values_it_is_the_z_score() -> None:
    reference = np.random.default_rng(0).normal(5, 2, (20_000, 1))
    np.testing.assert_allclose(robust_z(np.array([[11.0]]), reference), [[3.0]], rtol=0.05)


def test_outliers_do_not_hide_themselves() -> None:
    reference = np.concatenate([np.random.default_rng(0).normal(size=(90, 1)), np.full((10, 1), 1e6)])
    assert robust_z(np.array([[1e6]]), reference)[0, 0] > 1e5


def test_constant_features() -> None:
    reference = np.zeros((50, 2))
    reference[0, 1] = 1.0
    z = robust_z(np.array([[0.0, 0.0], [2.0, 2.0]]), reference)
    assert z[0].tolist() == [0.0, 0.0]
    assert z[1, 0] == np.inf
    assert z[1, 1] == pytest.approx(2 / (1.2533 / 50))
