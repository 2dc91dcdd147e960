"""Two models on the same data: how far do the outputs differ, and does it matter?

Used by parity (fp32 against INT8), export (source framework against fp32) and quantize (before against after).
Arrays at hand::

    comparison = Comparison(choose(reference))
    comparison.update(indices, reference, candidate)  # dicts of arrays by output name, samples along axis 0
    comparison.max_abs, comparison.flips.flips, comparison.outputs["probabilities"].error.quantile(0.99)

A stream, in memory that does not grow with it::

    comparison = compare(Pair(batch.indices, before(batch.feed), after(batch.feed)) for batch in batches)

Every statistic is a small class with `update` and `merge`: parts of a stream may be seen by several processes, and
merged in any order.
"""

from stages.common.compare.comparison import Comparison, MismatchError, Outputs
from stages.common.compare.output import OutputComparison
from stages.common.compare.stream import Pair, compare
from stages.common.decisions import Decider, choose

__all__ = ["Comparison", "Decider", "MismatchError", "OutputComparison", "Outputs", "Pair", "choose", "compare"]
