"""All values that a session returns become arrays with the samples along axis 0."""

from typing import Any

import numpy as np
import pytest

from stages.common.model.sessions import as_arrays, per_sample


@pytest.mark.parametrize("keys", [("b", "a"), (7, 3)])
def test_maps_become_scores_with_their_keys_sorted(keys: tuple[Any, Any]) -> None:
    value = [{keys[0]: 0.75, keys[1]: 0.25}, {keys[0]: 0.5, keys[1]: 0.5}]
    np.testing.assert_array_equal(as_arrays(["p"], [value])["p"], [[0.25, 0.75], [0.5, 0.5]])


def test_a_key_that_one_map_lacks_is_nan() -> None:
    arrays = as_arrays(["p"], [[{"a": 1.0}, {"a": 0.5, "b": 0.5}]])["p"]
    np.testing.assert_array_equal(arrays, [[1.0, np.nan], [0.5, 0.5]])


def test_sequences_of_tensors_are_stacked_or_laid_end_to_end() -> None:
    same, other = [np.zeros((2, 3)), np.ones((2, 3))], [np.zeros((2, 3)), np.ones(1)]
    arrays = as_arrays(["same", "other"], [same, other])
    assert (arrays["same"].shape, arrays["other"].shape) == ((2, 2, 3), (7,))


@pytest.mark.parametrize("value", [[], None])
def test_nothing_is_an_empty_array(value: Any) -> None:
    assert as_arrays(["y"], [value])["y"].size == 0


def test_an_output_without_the_samples_along_axis_0_belongs_to_each() -> None:
    arrays = per_sample({"y": np.zeros((4, 2)), "state": np.zeros((2, 4, 8)), "scalar": np.float32(3) * np.ones(())}, 4)
    assert {name: array.shape for name, array in arrays.items()} == {"y": (4, 2), "state": (4, 2, 4, 8), "scalar": (4,)}
