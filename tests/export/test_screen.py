"""The sentence on the drift that export prints."""

import numpy as np
import pytest

from stages.common.moments import Moments
from stages.export.drift import Drift
from stages.export.screen import conclusion


def output(reference: list[float], difference: list[float]) -> Moments:
    moments = Moments()
    moments.add_values(np.array(reference), np.array(difference))
    return moments


PROBABILITIES = output([0, 0.25, 1], [0, 0.1, -0.1])
VALUES = output([100, 200, 300], [0, 8, 0])
SCALED = "; the RMS difference is 0.057 times the standard deviation of the answers."


@pytest.mark.parametrize(
    ("outputs", "flips", "expected"),
    [
        ({"p": PROBABILITIES}, 0, "by at most 0.1, and it flips no decisions."),
        ({"p": PROBABILITIES}, None, f"by at most 0.1{SCALED.replace('0.057', '0.19')}"),
        ({"y": VALUES}, None, f"by at most 8{SCALED}"),
        ({"p": PROBABILITIES, "y": VALUES}, 1, f"by at most 8, and it flips 1 decision{SCALED}"),
        ({"y": output([1, 2], [0, 0])}, None, "by at most 0."),
        ({"y": output([1, 1], [0, 1])}, None, "by at most 1."),
    ],
)
def test_the_drift_of_other_answers_than_probabilities_has_a_scale(
    outputs: dict[str, Moments], flips: int | None, expected: str
) -> None:
    assert conclusion(Drift(outputs, flips, {})) == f"The answers of the export differ from its source's {expected}"
