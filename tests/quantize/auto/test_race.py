"""Which of the models that were timed is published."""

import pytest

from stages.quantize.auto.judge import Candidate
from stages.quantize.auto.problem import Point
from stages.quantize.auto.race import RACERS, Trial, racers, winner
from stages.quantize.auto.timing import Ratio

POINT = Point((1,), 1.0, 0.0, 1)


def value(point: Point) -> float:
    """Microseconds, and 5 % of the size of a float model that takes 1 us and has 400 bytes."""
    return point.us + 0.05 / 400 * point.size


def trial(origin: str, size: int, ratio: float) -> Trial:
    speedup = Ratio(ratio, ratio - 0.004, ratio + 0.004)
    return Trial(origin, candidate(size), POINT, us=1 / ratio, speedup=speedup)


def candidate(size: int, strain: float = 0.5, **choices: str) -> Candidate:
    return Candidate((1,), choices, None, {}, (), strain, size)


def test_a_smaller_model_that_is_slower_than_float_does_not_win_over_one_that_is_not() -> None:
    """Their speeds are equal within the noise, so that the smaller one would win, and float be published instead."""
    slower, faster = trial("slower", 100, 0.99), trial("faster", 200, 1.01)
    assert winner([slower, faster], "latency", value) is faster
    assert winner([slower, faster], "size", value) is slower
    assert winner([slower], "latency", value) is slower


@pytest.mark.parametrize(
    ("other", "wins"),
    [
        (trial("level and smaller", 198, 1.49), True),
        (trial("level and larger", 202, 1.51), False),
        (trial("smaller, slower", 190, 1.44), False),
        (trial("much smaller, a little slower", 80, 1.44), True),
        (trial("much smaller, slower by a tenth", 80, 1.35), False),
    ],
)
def test_size_wins_where_speed_is_level_and_counts_a_little_elsewhere(other: Trial, wins: bool) -> None:
    fast = trial("fast", 200, 1.5)
    assert winner([fast, other], "latency", value) is (other if wins else fast)


def test_under_size_speed_wins_only_among_models_of_one_size() -> None:
    small, faster, exact = trial("small", 200, 1.2), trial("as small", 200, 1.3), trial("larger", 210, 2.0)
    assert winner([small, faster, exact], "size", value) is faster


def test_of_models_with_the_same_kernels_the_smallest_races_with_the_time_of_the_quietest() -> None:
    trials = [
        Trial("float", candidate(100, a="dynamic", b="float"), POINT, us=10.0),
        Trial("disturbed", candidate(60, a="dynamic", b="stored"), POINT, us=20.0),
        Trial("as small, less exact", candidate(60, 0.6, a="dynamic", b="stored"), POINT, us=11.0),
        Trial("other", candidate(90, a="row", b="float"), POINT, us=12.0),
    ]
    assert [racer.origin for racer in racers(trials, lambda point: point.us)] == ["disturbed", "other"]
    many = [Trial(str(us), candidate(1, a=str(us)), POINT, us=us) for us in range(9, 0, -1)]
    assert [racer.us for racer in racers(many, lambda point: point.us)] == list(range(1, RACERS + 1))
