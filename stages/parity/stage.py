"""The stage from params to files, and the trial of other tolerances."""

import argparse
import math

from stages.common.base import paths
from stages.common.base.files import write_json
from stages.common.base.params import load
from stages.parity import evidence, metrics, words
from stages.parity.caveats import caveats
from stages.parity.explanation import explanation
from stages.parity.judgement import judgement
from stages.parity.setting import opened


def run() -> int:
    """Judge by params.yaml, write the evidence and the metrics, and print both."""
    params = load()
    found = judgement(opened(params.serving), params.parity)
    why = None if found.passed else explanation(found, params)
    said = caveats(found, params.parity)
    notes = {f"note_{number}": each for number, each in enumerate(said, start=1)}
    if why is not None:
        notes |= {f"try_{number}": each.command for number, each in enumerate(why.attempts, start=1)}
    evidence.write(found.comparison)
    write_json(paths.PARITY, metrics.tree(found, notes))
    print(words.report(found, said, why))
    return 0


def trial(abs_tol: float | None, mean_tol: float | None) -> int:
    """Judge by other tolerances for every output, write nothing; 1 for a miss."""
    params = load()
    given = {name: value for name, value in (("abs_tol", abs_tol), ("mean_tol", mean_tol)) if value is not None}
    outputs = {name: own.model_copy(update=given) for name, own in params.parity.outputs.items()}
    tried = params.parity.model_copy(update={**given, "outputs": outputs})
    found = judgement(opened(params.serving), tried)
    print(words.report(found, caveats(found, tried), None))
    return 0 if found.passed else 1


def tolerance(text: str) -> float:
    """A tolerance from the command line: a number of zero or more."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is no tolerance: zero or more is allowed")
    return value
