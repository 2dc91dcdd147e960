"""The folder in which the stage runs."""

import math
from pathlib import Path

import pytest

from stages.quantize import stage
from tests.quantize.running import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # Small nets grow by the nodes that are added; what is kept because of that has a test of its own.
    monkeypatch.setattr(stage, "LARGEST_SHARE", math.inf)
    return Bench(tmp_path, monkeypatch)
