"""The folder in which the stage runs."""

import math
from pathlib import Path

import pytest

from stages.quantize import growth
from tests.quantize.running import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # INT8 makes small nets larger; that the float model is then kept has a test of its own.
    monkeypatch.setattr(growth, "LARGEST_SHARE", math.inf)
    return Bench(tmp_path, monkeypatch)
