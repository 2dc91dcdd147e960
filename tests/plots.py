"""The fields that a plot template reads: `dvc plots` shows an empty pane if the data has no column of that name."""

from collections.abc import Iterator
from typing import Any


def unknown_fields(template: Any, columns: set[str]) -> set[str]:
    """The fields that a template reads although the file lacks them, DVC adds none and the template computes none."""
    fields = {name for name in _values(template, "field") if not name.startswith("<")}
    return fields - columns - set(_values(template, "as")) - {"rev", "field"}


def _values(tree: Any, key: str) -> Iterator[str]:
    """The strings under `key` anywhere in a tree."""
    if isinstance(tree, list):
        for branch in tree:
            yield from _values(branch, key)
    elif isinstance(tree, dict):
        if isinstance(tree.get(key), str):
            yield tree[key]
        for branch in tree.values():
            yield from _values(branch, key)
