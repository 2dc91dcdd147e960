"""The reason that a plan gives for a node that stays float."""

import pytest

from stages.quantize.auto.plan import decisions
from stages.quantize.auto.problem import Option, Prices, Problem

FLOAT = Option("float", 5.0, 0.0, 400)


@pytest.mark.parametrize(
    ("option", "prices", "reason"),
    [
        (Option("static", 3.0, 9.0, 100), Prices(1, 0), "static would save 2 us and 300 bytes, which is not worth"),
        (Option("stored", 5.0, 9.0, 100), Prices(0, 1), "stored would save 300 bytes, which is not worth the error"),
        (Option("stored", 5.0 - 1e-6, 0.1, 420), Prices(0, 1), "stored would make it neither faster nor smaller"),
        (Option("dynamic", 6.0, 0.1, 100), Prices(1, 0), "dynamic would take 6 us in its kernel instead of 5"),
    ],
)
def test_why_a_node_stays_float(option: Option, prices: Prices, reason: str) -> None:
    problem = Problem(("node",), ((FLOAT, option),))
    assert decisions(problem, (0,), {}, {}, prices.value)["node"].reason.startswith(reason)
