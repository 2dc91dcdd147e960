"""Which rounds nothing disturbed: the rest say what a neighbour does to this machine, not what INT8 does.

A virtual machine shares its cores with others that it cannot see. While one of them is busy, every call takes a third
longer or more, for tenths of a second or for many, the CPU time says nothing of it, and the two models suffer
unequally: the same pair shows another speed-up. Rounds are chosen by the time that both models took together, which
favours neither of them.
"""

import math
from collections.abc import Sequence

import numpy as np

_LEVEL = 0.05
_WITHIN = 0.1
"""Above launches' own differences (memory layout, about 3 %), and below what a neighbour costs (25 % and more)."""


def quiet_rounds(medians: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Which rounds took both models no more than a tenth longer than the quietest twentieth of all rounds.

    Args:
        medians: for each launch the median time of a call, shape [rounds, 2], in any one unit.

    Returns:
        For each launch a mask of shape [rounds].
    """
    slowness = [np.log(each).mean(axis=1) for each in medians]
    limit = np.quantile(np.concatenate(slowness), _LEVEL) + math.log1p(_WITHIN)
    return [each <= limit for each in slowness]
