"""A folder of its own for each test of export."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common.base import paths
from stages.common.base.params import Export
from stages.export.exporting import export

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Export in a folder of its own, by the keys of `export` in the params; return metrics/export.json."""
    monkeypatch.chdir(tmp_path)

    def run_export(source: str, **keys: Any) -> dict[str, Any]:
        export(Export(source=source, **keys))
        tree: dict[str, Any] = json.loads(paths.EXPORT.read_text())
        return tree

    return run_export
