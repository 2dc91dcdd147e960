"""The same bytes in every run, for any hash seed of Python and on any CPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PRINT_HASHES = """
import hashlib
from tests.quantize import nets
for model in (nets.mlp(), nets.conv_net(channels=4)):
    for params in {params}:
        quantized, _ = nets.quantized(model, **params)
        print(hashlib.sha256(quantized.SerializeToString(deterministic=True)).hexdigest())
"""

METHODS = ("dynamic", "static", "weight_only", "stored")

PRINT_WEIGHTS = """
import hashlib
import numpy as np
from stages.quantize import portable
# Few different values, so that many weights are equally good to round the other way.
weight = np.round(np.random.default_rng(0).normal(size=(300, 40)) * 8).astype(np.float32) / 8
print(hashlib.sha256(portable.quantize(weight, 0, (1,)).values).hexdigest())
"""

ROOT = Path(__file__).parents[2]


def printed(code: str, **environment: str) -> str:
    """The output of a new Python process."""
    command = [sys.executable, "-c", code]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_every_method_gives_the_same_bytes_under_any_hash_seed() -> None:
    others = {"weight_type": "QUInt8", "per_channel": False}
    params = [{"method": method} | more for method in METHODS for more in ({}, others)]
    hashes = [printed(PRINT_HASHES.format(params=params), PYTHONHASHSEED=seed) for seed in ("0", "1", "2")]
    assert len(set(hashes)) == 1
    assert len(hashes[0].splitlines()) == 2 * len(params)


def test_portable_weights_are_the_same_without_the_newer_instructions_that_numpy_uses() -> None:
    found = np.show_config("dicts")["SIMD Extensions"].get("found")
    if not found:
        pytest.skip("NumPy uses no instructions here that every CPU of this kind does not have")
    assert printed(PRINT_WEIGHTS) == printed(PRINT_WEIGHTS, NPY_DISABLE_CPU_FEATURES=" ".join(found))
