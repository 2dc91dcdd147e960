"""How much of its tolerance each rule of parity uses: one number for how near a model is to failing. Pure."""

import math
from collections.abc import Iterable

from stages.common.judging.rules import CONSTANT_RULES
from stages.common.rule import Rule


def strain(rule: Rule) -> float:
    """The share of its tolerance that a rule uses: 1 at the limit, above 1 where it fails.

    In units of amplitude for every rule, so that half the strain is half the error: a decibel is 10^(1/20), and
    1 - cosine grows with the square of the error.
    """
    if rule.value == "inf":  # of min_sqnr_db: no noise at all
        return 0.0
    if rule.name in CONSTANT_RULES or not (isinstance(rule.value, float | int) and isinstance(rule.limit, float | int)):
        return math.inf if rule.failed else 0.0
    value, limit = rule.value, rule.limit
    if rule.name == "min_sqnr_db":
        return float(10 ** ((limit - value) / 20))
    if rule.name == "min_cosine":
        value, limit = math.sqrt(max(0.0, 1 - value)), math.sqrt(max(0.0, 1 - limit))
    if limit <= 0:
        return 0.0 if value <= 0 else math.inf
    return max(0.0, value) / limit


def largest_strain(rules: Iterable[Rule]) -> float:
    """The strain of the rule that is nearest to failing; 0 without rules."""
    return max(map(strain, rules), default=0.0)
