"""The folder of real models to test with: the one that ZOO names, else `../shared/zoo`; None if it does not exist."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "zoo"
_NAMED = Path(os.environ["ZOO"]) if os.environ.get("ZOO") else _BESIDE

ZOO: Path | None = _NAMED if _NAMED.is_dir() else None

needs_zoo = pytest.mark.skipif(ZOO is None, reason="no folder of real models here: name one by the variable ZOO")
