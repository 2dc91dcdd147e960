"""Comparing two streams of outputs, in memory that does not grow with them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from stages.common.compare.comparison import Comparison, Outputs
from stages.common.decisions import Decider, choose


@dataclass(frozen=True)
class Pair:
    """Outputs of both models for the same samples: indices [n], and arrays with the samples along axis 0."""

    indices: np.ndarray
    reference: Outputs
    candidate: Outputs


def compare(
    pairs: Iterable[Pair],
    labels: Callable[[np.ndarray], np.ndarray | None] | None = None,
    decider: Callable[[Outputs, np.ndarray | None], Decider] = choose,
) -> Comparison:
    """Compare two models over a stream of outputs.

    Args:
        pairs: outputs of both for some samples at a time; a thousand at a time make the arithmetic cheap.
        labels: gives the labels of samples by their indices, e.g. `EvalData.labels`.
        decider: finds the decision among the reference's outputs of the first pair, and their labels.

    Raises:
        MismatchError: names or kinds of the outputs differ.
    """
    comparison: Comparison | None = None
    for pair in pairs:
        known = labels(pair.indices) if labels is not None else None
        if comparison is None:
            comparison = Comparison(decider(pair.reference, known))
        comparison.update(pair.indices, pair.reference, pair.candidate, known)
    return comparison or Comparison()
