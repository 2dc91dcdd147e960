"""Which of the models that were timed is published."""

from stages.quantize.auto.judge import Candidate
from stages.quantize.auto.problem import Point
from stages.quantize.auto.race import Trial, winner
from stages.quantize.auto.timing import Ratio


def trial(origin: str, size: int, ratio: float) -> Trial:
    candidate = Candidate((1,), {}, None, {}, (), 0.5, size)
    return Trial(origin, candidate, Point((1,), 1.0, 0.0, size), speedup=Ratio(ratio, ratio - 0.004, ratio + 0.004))


def test_a_smaller_model_that_is_slower_than_float_does_not_win_over_one_that_is_not() -> None:
    """Their speeds are equal within the noise, so that the smaller one would win, and float be published instead."""
    slower, faster = trial("slower", 100, 0.99), trial("faster", 200, 1.01)
    assert winner([slower, faster], "latency") is faster
    assert winner([slower, faster], "size") is slower
    assert winner([slower], "latency") is slower
