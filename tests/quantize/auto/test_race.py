"""Which of the models that were timed is published."""

import pytest

from stages.quantize.auto.judge import Candidate
from stages.quantize.auto.problem import Point
from stages.quantize.auto.race import RACERS, Trial, racers, winner
from stages.quantize.auto.timing import Ratio

POINT = Point((1,), 1.0, 0.0, 1)


def trial(origin: str, size: int, ratio: float, *, behind: bool = False) -> Trial:
    return Trial(origin, candidate(size), POINT, speedup=Ratio(ratio, ratio - 0.004, ratio + 0.004), behind=behind)


def candidate(size: int, strain: float = 0.5, **choices: str) -> Candidate:
    return Candidate((1,), choices, None, {}, (), strain, size)


def test_a_smaller_model_that_is_slower_than_float_does_not_win_over_one_that_is_not() -> None:
    """Their speeds are equal within the noise, so that the smaller one would win, and float be published instead."""
    slower, faster = trial("slower", 100, 0.99), trial("faster", 200, 1.01)
    assert winner([slower, faster], "latency") is faster
    assert winner([slower, faster], "size") is slower
    assert winner([slower], "latency") is slower


@pytest.mark.parametrize(
    ("other", "wins"),
    [
        (trial("level and smaller", 198, 1.49, behind=True), True),
        (trial("level and larger", 202, 1.51), False),
        (trial("smaller", 190, 1.44), False),
        (trial("much smaller", 170, 1.44), True),
        (trial("much smaller, measurably slower", 170, 1.44, behind=True), False),
        (trial("much smaller, much slower on a disturbed machine", 170, 1.3), False),
    ],
)
def test_size_wins_only_over_speed_that_the_race_did_not_show(other: Trial, wins: bool) -> None:
    fast = trial("fast", 200, 1.5)
    assert winner([fast, other], "latency") is (other if wins else fast)


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
