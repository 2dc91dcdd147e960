"""Comparing two streams of outputs: small batches are gathered into blocks, so that the arithmetic costs nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stages.common.compare.comparison import Comparison, Outputs
from stages.common.compare.decisions import Decider

BLOCK_BYTES = 2 << 20
"""Outputs of the reference gathered before they are compared."""

Labels = Callable[[np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class Pair:
    """Outputs of both models for the same samples: indices [n], and arrays with the samples along axis 0."""

    indices: np.ndarray
    reference: Outputs
    candidate: Outputs


@dataclass
class _Block:
    pairs: list[Pair] = field(default_factory=list)
    bytes: int = 0

    def fits(self, pair: Pair) -> bool:
        """Whether the outputs of `pair` have the shapes of those gathered, but for axis 0."""
        if not self.pairs:
            return True
        return all(
            array.shape[1:] == pair.reference[name].shape[1:] and other.shape[1:] == pair.candidate[name].shape[1:]
            for (name, array), other in zip(
                self.pairs[0].reference.items(), self.pairs[0].candidate.values(), strict=True
            )
        )

    def add(self, pair: Pair) -> None:
        self.pairs.append(pair)
        self.bytes += sum(array.nbytes for array in pair.reference.values())

    def joined(self) -> Pair:
        if len(self.pairs) == 1:
            return self.pairs[0]
        return Pair(
            np.concatenate([each.indices for each in self.pairs]),
            *(
                {name: np.concatenate([outputs[name] for outputs in side]) for name in side[0]}
                for side in ([each.reference for each in self.pairs], [each.candidate for each in self.pairs])
            ),
        )


def blocks(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Join consecutive pairs of equal shapes until a block has `BLOCK_BYTES`."""
    block = _Block()
    for pair in pairs:
        if block.bytes >= BLOCK_BYTES or not block.fits(pair):
            yield block.joined()
            block = _Block()
        block.add(pair)
    if block.pairs:
        yield block.joined()


def compare(
    pairs: Iterable[Pair],
    labels: Labels | None = None,
    choose: Callable[[Outputs, np.ndarray | None], Decider] | None = None,
) -> Comparison:
    """Compare two models over a stream of outputs, in memory that does not grow with it.

    Args:
        pairs: outputs of both for some samples at a time.
        labels: gives the labels of samples by their indices, e.g. `EvalData.labels`.
        choose: finds the decision among the reference's outputs of the first block; `decisions.choose` by default.

    Raises:
        MismatchError: names or kinds of the outputs differ.
    """
    from stages.common.compare import decisions

    comparison: Comparison | None = None
    for block in blocks(pairs):
        known = labels(block.indices) if labels is not None else None
        if comparison is None:
            comparison = Comparison((choose or decisions.choose)(block.reference, known))
        comparison.update(block.indices, block.reference, block.candidate, known)
    return comparison or Comparison()
