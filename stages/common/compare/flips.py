"""Decisions that change between two models, and what their number proves."""

from dataclasses import dataclass, field

import numpy as np

from stages.common.decisions import TIE

CONFIDENT = 0.1
"""From this margin on a flip is a confident one: healthy INT8 models have none."""

TOP = 5
SHOWN = 20


@dataclass
class Flips:
    """Decisions that change. `flips` excludes ties, which are counted separately."""

    count: int = 0
    flips: int = 0
    ties: int = 0
    confident: int = 0
    margins_known: bool = True
    first: list[int] = field(default_factory=list)

    def update(
        self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray, margin: np.ndarray | None
    ) -> None:
        """Add decisions [n] of both models, and the margins of the reference's, float64 [n], or None."""
        changed = reference != candidate
        self.count += len(reference)
        if margin is None:
            self.margins_known = False
            tie = np.zeros(len(reference), dtype=bool)
        else:
            tie = margin < TIE
            self.confident += int(np.count_nonzero(changed & (margin >= CONFIDENT)))
        self.ties += int(np.count_nonzero(changed & tie))
        self.flips += int(np.count_nonzero(changed & ~tie))
        self._keep(indices[changed & ~tie].tolist())

    def merge(self, other: "Flips") -> None:
        """Add what was counted of other samples."""
        self.count += other.count
        self.flips += other.flips
        self.ties += other.ties
        self.confident += other.confident
        self.margins_known &= other.margins_known
        self._keep(other.first)

    @property
    def agreement(self) -> float | None:
        """The share of samples with the same decision."""
        return 1 - (self.flips + self.ties) / self.count if self.count else None

    @property
    def rate_high95(self) -> float | None:
        """The exact one-sided 95 % upper bound of the flip rate (Clopper and Pearson, Biometrika 1934)."""
        return upper_bound(self.flips, self.count)

    def _keep(self, samples: list[int]) -> None:
        self.first = sorted([*self.first, *samples])[:SHOWN]


def upper_bound(hits: int, count: int) -> float | None:
    """The largest rate at which `hits` or fewer of `count` happen in 5 % of cases; None without samples.

    It is the 95 % quantile of Beta(hits + 1, count - hits); without hits 1 - 0.05^(1/count), about 3/count.
    """
    if count == 0:
        return None
    if hits == count:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(hits + 1, count - hits, 0.95))


def needed(rate: float) -> int:
    """How many samples without a single hit bound a rate by `rate`, with 95 % confidence."""
    return int(np.ceil(np.log(0.05) / np.log1p(-rate)))


@dataclass
class TopFive:
    """The share of samples whose best class in the reference is among the candidate's five best."""

    count: int = 0
    hits: int = 0

    def update(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add scores [n, classes]; with five classes or fewer nothing is counted."""
        if reference.shape[1] <= TOP:
            return
        best = reference.argmax(axis=1)
        value = candidate[np.arange(len(best)), best][:, None]
        self.count += len(best)
        self.hits += int(np.count_nonzero(np.count_nonzero(candidate > value, axis=1) < TOP))

    def merge(self, other: "TopFive") -> None:
        """Add what was counted of other samples."""
        self.count += other.count
        self.hits += other.hits

    @property
    def agreement(self) -> float | None:
        """The share; None where nothing was counted."""
        return self.hits / self.count if self.count else None
