"""A folder of its own for each test of export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common.base.params import Export
from stages.export import figures, stage

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that exports in a folder of its own with keys of the section `export`, and returns the headlines, with
    the details under the key `details`.
    """
    monkeypatch.chdir(tmp_path)

    def run_export(source: str, **keys: Any) -> dict[str, Any]:
        result = stage.run(Export(source=source, **keys))
        figures.write(result)
        return figures.headlines(result) | {"details": figures.details(result)}

    return run_export
