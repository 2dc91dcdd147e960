"""The evidence as CSV files: the histogram of errors, sampled pairs of values, and the samples that moved most."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from stages.common.base import paths
from stages.common.base.files import Outputs, rounded
from stages.common.compare import Comparison, OutputComparison
from stages.common.compare.worst import KEPT, WorstSample

BINS_PER_DECADE = 4
PLOTTED_OUTPUTS = 6
PLOTTED_PAIRS = 500


def write(comparison: Comparison, abs_tols: Mapping[str, Any], outputs: Outputs) -> None:
    """Write `metrics/details/parity_errors.csv`, `parity_scatter.csv` and `parity_worst.csv`.

    Args:
        comparison: of both models.
        abs_tols: the largest absolute difference allowed, by output; outputs judged otherwise are missing.
        outputs: takes the files.
    """
    plotted = comparison.floats[:PLOTTED_OUTPUTS]
    outputs.csv(
        paths.PARITY_ERRORS, ("output", "low", "high", "values", "share", "abs_tol"), _histogram(plotted, abs_tols)
    )
    outputs.csv(paths.PARITY_SCATTER, ("output", "sample", "fp32", "int8"), _pairs(plotted))
    header = ("sample", "output", "position", "fp32", "int8", "abs_error", "share_of_range")
    outputs.csv(paths.PARITY_WORST, header, _worst(comparison))


def worst(comparison: Comparison) -> list[tuple[float, OutputComparison, WorstSample]]:
    """The samples that moved most, each with its error as a share of the output's range.

    The worst `KEPT` of all float outputs come first, then as many of the others, which are equal or not.
    """
    ranked = [
        (sample.error / (output.signal.span or 1.0), output, sample)
        for output in comparison.outputs.values()
        for sample in output.worst.samples
    ]
    ranked.sort(key=lambda row: (-row[0], row[2].sample, row[1].name))
    return [
        *[row for row in ranked if row[1].is_float][:KEPT],
        *[row for row in ranked if not row[1].is_float][:KEPT],
    ]


def _histogram(outputs: list[OutputComparison], abs_tols: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for output in outputs:
        for low, high, count in output.absolute.sketch.histogram(BINS_PER_DECADE):
            share = rounded(count / output.absolute.count)
            yield output.name, rounded(low), rounded(high), count, share, abs_tols.get(output.name)


def _pairs(outputs: list[OutputComparison]) -> Iterator[tuple[Any, ...]]:
    """A uniform sample, and the worst samples, which it would most likely miss."""
    for output in outputs:
        if output.pairs.values is None:
            continue
        samples, values = output.pairs.samples[:PLOTTED_PAIRS], output.pairs.values[:PLOTTED_PAIRS]
        kept = {(sample, *pair) for sample, pair in zip(samples.tolist(), values.tolist(), strict=True)}
        kept |= {
            (moved.sample, moved.reference, moved.candidate) for moved in output.worst.samples if moved.error < math.inf
        }
        for sample, fp32, int8 in sorted(kept):
            yield output.name, sample, rounded(fp32, 6), rounded(int8, 6)


def _worst(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    for share, output, sample in worst(comparison):
        values = (shown(sample.reference), shown(sample.candidate))
        error = (rounded(sample.error), rounded(share)) if output.is_float else ("", "")
        yield sample.sample, output.name, sample.position, *values, *error


def shown(value: Any) -> Any:
    """A value as JSON and CSV can hold it: NaN and infinities as text."""
    if not isinstance(value, float):
        return value
    return rounded(value, 6) if math.isfinite(value) else str(value)
