import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.timing.summary import (
    FEWEST_LAUNCHES,
    MIN_LAUNCHES,
    Launch,
    calls_for,
    quantile_ms,
    quiet_rounds,
    summarize,
)


def launch(fp32_us: float, int8_us: float, rounds: int = 6, calls: int = 50, seed: int = 0) -> Launch:
    random = np.random.default_rng(seed)
    times = [
        (random.normal(fp32_us, 0.5, calls) * 1e3, random.normal(int8_us, 0.3, calls) * 1e3) for _ in range(rounds)
    ]
    return Launch(times, 1.0)


def test_the_speed_up_is_that_of_the_quiet_launches() -> None:
    quiet = [launch(70, 35, seed=number) for number in range(10)]
    disturbed = [launch(95, 60, seed=100 + number) for number in range(10)]
    timing = summarize([*quiet, *disturbed], samples=1, target=0.02)
    assert timing.interval.ratio == pytest.approx(2.0, rel=0.005)
    assert timing.quiet_share == pytest.approx(0.5)
    assert not timing.all_rounds
    assert (timing.launches, timing.stopped_by) == (20, "target")
    assert timing.fp32.p50_ms == pytest.approx(0.070, rel=0.01)
    assert np.median(timing.fp32.all_ns) > 71_000


def test_a_launch_that_was_quiet_for_a_while_counts_with_those_rounds() -> None:
    mixed = [Launch(launch(70, 35, 1, seed=number).rounds + launch(95, 60, 5).rounds, 1.0) for number in range(8)]
    timing = summarize(mixed, samples=1, target=0.05)
    assert timing.interval.ratio == pytest.approx(2.0, rel=0.01)
    assert timing.stopped_by == "target"


def test_with_too_few_quiet_launches_all_rounds_count() -> None:
    quiet = [launch(70, 35, seed=number) for number in range(FEWEST_LAUNCHES - 1)]
    disturbed = [launch(95, 60, seed=100 + number) for number in range(20)]
    timing = summarize([*quiet, *disturbed], samples=1, target=0.5)
    assert timing.all_rounds
    assert timing.stopped_by == "budget"
    assert len(timing.fp32.counted_ns) == len(timing.fp32.all_ns)


def test_the_target_takes_as_many_quiet_launches_as_launches() -> None:
    quiet = [launch(70, 35, seed=number) for number in range(MIN_LAUNCHES - 1)]
    timing = summarize([*quiet, launch(95, 60)], samples=1, target=0.5)
    assert not timing.all_rounds
    assert timing.stopped_by == "budget"
    assert summarize([*quiet, launch(70, 35)], samples=1, target=0.5).stopped_by == "target"


def test_disturbance_leaves_the_interval_of_a_model_against_itself_covering_1() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        launches = []
        for _ in range(8):
            layout = random.normal(0, 0.01, 2)
            rounds = []
            for _ in range(10):
                slow = 1.35 if random.random() < 0.4 else 1.0
                fp32, int8 = (70e3 * np.exp(offset) * slow * random.normal(1, 0.01, 20) for offset in layout)
                rounds.append((fp32, int8))
            launches.append(Launch(rounds, 1.0))
        covered += summarize(launches, samples=1, target=0).interval.covers(1)
    assert covered >= 181  # 190 expected, three standard errors off


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
    for mask, swapped in zip(masks, quiet_rounds([times[:, ::-1] for times in launches]), strict=True):
        np.testing.assert_array_equal(mask, swapped)


@given(st.lists(rounds, min_size=1, max_size=10), st.floats(0.01, 100))
def test_which_rounds_count_does_not_depend_on_the_unit(launches: list[np.ndarray], scale: float) -> None:
    counted = sum(int(mask.sum()) for mask in quiet_rounds(launches))
    rescaled = sum(int(mask.sum()) for mask in quiet_rounds([times * scale * (1 + 1e-12) for times in launches]))
    assert abs(counted - rescaled) <= 1  # a round on the very limit may fall to either side


@pytest.mark.parametrize(("share", "calls"), [(0.5, 1), (0.9, 100), (0.95, 200), (0.99, 1000)])
def test_a_quantile_takes_ten_calls_beyond_it(share: float, calls: int) -> None:
    assert calls_for(share) == calls
    assert quantile_ms(np.full(calls, 2e6), share) == 2.0
    if calls > 1:
        assert quantile_ms(np.full(calls - 1, 2e6), share) is None
