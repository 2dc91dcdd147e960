import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.bench.quiet import quiet_rounds

rounds = st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)), min_size=1, max_size=12).map(np.array)


def test_rounds_during_which_a_neighbour_was_busy_do_not_count() -> None:
    random = np.random.default_rng(0)
    times = random.normal([70.0, 37.0], [0.7, 0.4], (20, 2))
    times[5:12] *= [1.3, 1.45]
    (mask,) = quiet_rounds([times])
    assert mask.tolist() == [not 5 <= number < 12 for number in range(20)]


def test_a_launch_that_was_disturbed_throughout_keeps_none() -> None:
    quiet, disturbed = np.full((10, 2), 70.0), np.full((10, 2), 95.0)
    masks = quiet_rounds([quiet, disturbed])
    assert masks[0].all()
    assert not masks[1].any()


def test_launches_that_differ_by_memory_layout_all_count() -> None:
    launches = [np.full((10, 2), 70.0 * (1 + number / 100)) for number in range(5)]
    assert all(mask.all() for mask in quiet_rounds(launches))


@given(st.lists(rounds, min_size=1, max_size=10))
def test_which_rounds_count_does_not_depend_on_which_model_is_which(launches: list[np.ndarray]) -> None:
    masks = quiet_rounds(launches)
    assert any(mask.any() for mask in masks)
    for mask, swapped in zip(masks, quiet_rounds([each[:, ::-1] for each in launches]), strict=True):
        np.testing.assert_array_equal(mask, swapped)


@given(st.lists(rounds, min_size=1, max_size=10), st.floats(0.01, 100))
def test_which_rounds_count_does_not_depend_on_the_unit(launches: list[np.ndarray], scale: float) -> None:
    counted = sum(int(mask.sum()) for mask in quiet_rounds(launches))
    rescaled = sum(int(mask.sum()) for mask in quiet_rounds([each * scale * (1 + 1e-12) for each in launches]))
    assert abs(counted - rescaled) <= 1  # a round on the very limit may fall to either side
