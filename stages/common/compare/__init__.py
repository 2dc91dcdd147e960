"""Two models on the same data: how far do their outputs differ, and does it matter? Used by parity and by auto.

    comparison = compare(OutputPair(indices, fp32, int8) for ...)
    comparison.figures()["outputs"]["probabilities"]["p99_abs"]

Every statistic is a small class with `update` and `merge`, so that shards of a stream can be compared separately and
merged in any order. Memory does not grow with the stream, except for 17 bytes per sample of a binary classifier with
labels: its AUC needs every score.
"""

from stages.common.compare.comparison import Comparison, MismatchError, OutputPair, compare
from stages.common.compare.output import OutputComparison

__all__ = ["Comparison", "MismatchError", "OutputComparison", "OutputPair", "compare"]
