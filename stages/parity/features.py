"""Input features with outliers: a single one widens the scale of a whole batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.common.base.files import rounded
from stages.parity.setting import Setting

SEARCHED = 64
"""Samples whose inputs are searched for outliers after a miss: at least one batch."""

REFERENCE = 2048
REFERENCE_BYTES = 32 << 20
RUNS = 16

FAR = 10.0
"""The robust z-score from which a value counts as an outlier."""

MINIMUM = 20
"""With fewer samples to compare with, no outlier is reported."""

SHOWN = 5


def robust_z(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How far values lie from the median of their feature, in robust standard deviations.

    |value - median| / (1.4826 MAD); if the median absolute deviation is zero because most values are equal,
    |value - median| / (1.2533 mean absolute deviation) (Iglewicz and Hoaglin, 1993). Where the reference is constant,
    any other value gives infinity. Takes float64 [n, features] and [m, features]; returns [n, features].
    """
    median = np.median(reference, axis=0)
    away = np.abs(reference - median)
    scale = 1.4826 * np.median(away, axis=0)
    scale = np.where(scale > 0, scale, 1.2533 * away.mean(axis=0))
    distance = np.abs(values - median)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance > 0, distance / scale, 0.0)


def outliers(setting: Setting, moved: Sequence[int]) -> list[dict[str, Any]]:
    """The features with the largest outliers, at most `SHOWN`, each with its worst sample.

    The search covers the batches of the samples that moved most (`moved`, by index), and compares them with samples
    drawn from all that were judged.

    Returns:
        The entries of the details: `input`, `position` in the flattened sample, `sample`, `value`, `median`, and `z`,
        the robust z-score; None if it is infinite.
    """
    data, judged = setting.data, setting.indices
    suspicious = _batches_of(moved, judged, setting.batch)
    count = min(len(judged), REFERENCE, max(MINIMUM, REFERENCE_BYTES // data.sample_bytes))
    references = data.read(_spread(judged, count))
    farthest = []
    for name, array in data.read(suspicious[:count]).items():
        if array.dtype.kind != "f" or not array.size:
            continue
        values, reference = (side.reshape(len(side), -1).astype(np.float64) for side in (array, references[name]))
        reference = reference[np.isfinite(reference).all(axis=1)]
        if len(reference) < MINIMUM:
            continue
        z = robust_z(np.nan_to_num(values), reference)
        rows = z.argmax(axis=0)
        medians = np.median(reference, axis=0)
        for position in np.flatnonzero(z.max(axis=0) >= FAR).tolist():
            row = int(rows[position])
            value, median = float(values[row, position]), float(medians[position])
            outlier = {"input": name, "position": position, "sample": int(suspicious[row]), "value": value}
            farthest.append((-float(z[row, position]), outlier | {"median": median}))
    ranked = sorted(farthest, key=lambda outlier: (outlier[0], outlier[1]["input"], outlier[1]["position"]))
    return [outlier | {"z": rounded(-z)} for z, outlier in ranked[:SHOWN]]


def _batches_of(samples: Sequence[int], judged: np.ndarray, batch: int) -> np.ndarray:
    """The samples in the batches that `samples` were served in, then those of other batches, up to `SEARCHED`."""
    places = (np.searchsorted(judged, samples) // batch).tolist()
    others = range(-(-len(judged) // batch))
    chosen = list(dict.fromkeys([*places, *others[:SEARCHED]]))[: max(1, SEARCHED // batch)]
    return np.concatenate([judged[place * batch : (place + 1) * batch] for place in chosen])


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """`count` of the indices, in evenly spread runs: single samples would each bring their own pages into memory."""
    run = -(-count // RUNS)
    starts = np.linspace(0, len(indices) - run, RUNS).astype(np.int64)
    return np.unique(np.concatenate([indices[start : start + run] for start in starts]))
