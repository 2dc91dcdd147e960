"""Why parity was missed: the samples, the input features, the nodes; then what to try."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from stages.common.base.params import Params
from stages.common.data.evaldata import Batch
from stages.parity import advice, evidence
from stages.parity.advice import Attempt
from stages.parity.features import Outlier, outliers
from stages.parity.judgement import Judgement
from stages.parity.suspects import Diagnosis, diagnose

SAMPLES = 64
"""Samples on which nodes are tried, at least one batch of them."""


@dataclass(frozen=True)
class Explanation:
    """What was found out about a miss."""

    outliers: list[Outlier]
    diagnosis: Diagnosis
    attempts: list[Attempt]


def explanation(found: Judgement, params: Params) -> Explanation:
    """Look into a miss. The samples are those that moved most, in the batches in which they were served."""
    batches = _worst_batches(found)
    indices = np.concatenate([batch.indices for batch in batches])
    with tqdm(desc="parity: trying nodes", unit="node", disable=None, leave=False) as progress:
        diagnosis = diagnose(found.setting, batches, found.comparison.decider, params.parity, progress.update)
    return Explanation(
        outliers(found.setting.data, indices, found.setting.indices),
        diagnosis,
        advice.attempts(found, diagnosis, params),
    )


def _worst_batches(found: Judgement) -> list[Batch]:
    """The batches of the worst samples, the worst first, filled up with the first ones to `SAMPLES`."""
    setting = found.setting
    samples = [each.sample for _, _, each in evidence.worst(found.comparison)]
    worst = (np.searchsorted(setting.indices, samples) // setting.batch).tolist()
    every = range(-(-len(setting.indices) // setting.batch))
    chosen = list(dict.fromkeys([*worst, *every[:SAMPLES]]))[: max(1, SAMPLES // setting.batch)]
    batches = []
    for place in chosen:
        indices = setting.indices[place * setting.batch : (place + 1) * setting.batch]
        batches += list(setting.data.batches(indices, setting.batch))
    return batches
