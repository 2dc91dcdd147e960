"""The folder in which the stage runs."""

from pathlib import Path

import pytest

from tests.quantize.running import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)
