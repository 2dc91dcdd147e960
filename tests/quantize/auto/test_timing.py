"""What several sessions of two models say of their speed."""

from stages.quantize.auto.timing import Ratio, over_sessions


def test_sessions_that_disagree_widen_the_interval() -> None:
    """Each by itself would be certain, one that the model is slower, one that it is faster."""
    assert over_sessions([Ratio(0.99, 0.985, 0.995), Ratio(1.01, 1.005, 1.02), Ratio(1.0, 0.998, 1.001)]) == Ratio(
        1.0, 0.985, 1.02
    )
