"""The stage from params to files, and the trial of other tolerances."""

import argparse
import dataclasses
import math

from stages.common import paths
from stages.common.files import write_json
from stages.common.params import load
from stages.parity import evidence, metrics, words
from stages.parity.judgement import judgement


def run() -> int:
    """Judge by params.yaml, write the evidence and the metrics, and print both."""
    found = judgement(load())
    evidence.write(found.comparison)
    write_json(paths.PARITY, metrics.tree(found.comparison, found.rules, found.effect, found.batch))
    print(words.table(found))
    print(words.sentence(found))
    return 0


def trial(abs_tol: float | None, mean_tol: float | None) -> int:
    """Judge by other tolerances for every output, write nothing; 1 for a miss."""
    params = load()
    given = {name: value for name, value in (("abs_tol", abs_tol), ("mean_tol", mean_tol)) if value is not None}
    outputs = {name: dataclasses.replace(own, **given) for name, own in params.parity.outputs.items()}
    tried = dataclasses.replace(params.parity, **given, outputs=outputs)
    found = judgement(dataclasses.replace(params, parity=tried))
    print(words.table(found))
    print(words.sentence(found))
    return 0 if found.passed else 1


def tolerance(text: str) -> float:
    """A tolerance from the command line: a number of zero or more."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is no tolerance: zero or more is allowed")
    return value
