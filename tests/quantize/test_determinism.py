"""The same bytes, run after run, whatever the seed of Python's hashes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PRINT_HASHES = """
import hashlib
from tests.quantize import nets
for model in (nets.mlp(), nets.conv_net(channels=4)):
    for params in {params}:
        made, _ = nets.quantized(model, **params)
        print(hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest())
"""


@pytest.mark.parametrize("method", ["dynamic", "static", "weight_only"])
def test_every_method_gives_the_same_bytes_under_any_hash_seed(method: str) -> None:
    params = [{"method": method}, {"method": method, "weight_type": "QUInt8", "per_channel": False}]
    seen = set()
    for seed in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_HASHES.format(params=params)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    assert len(seen) == 1
    assert len(done.stdout.splitlines()) == 4
