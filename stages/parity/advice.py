"""Advice as commands that can be pasted into a shell: quoted for the shell, DVC and Hydra."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.common.base import paths, pipeline, yaml12

_DICT_KEY = re.compile(r"[\w/.+@?|%$*\\()\[\]{}:=, -]+", re.ASCII)
_NOT_TEXT = re.compile(r"true|false|null|nan|inf|[\d.eE+-]+", re.IGNORECASE)


@dataclass(frozen=True)
class Advice:
    """A command, and the effect that was measured."""

    command: str
    effect: str

    def as_json(self) -> dict[str, str]:
        """The advice as written to `metrics/details/parity.json`."""
        return {"command": self.command, "effect": self.effect}


def experiment(overrides: Iterable[tuple[str, Any]]) -> str | None:
    """The `dvc exp run` command that sets these keys of params.yaml; None if Hydra cannot express a value.

    A key that is not in the file gets the `+` that Hydra requires.
    """
    tree = yaml12.load(paths.PARAMS.read_text(encoding="utf-8")) if paths.PARAMS.exists() else {}
    pairs = [(key if _is_in(tree, key) else f"+{key}", _value(value)) for key, value in overrides]
    if any(text is None for _, text in pairs):
        return None
    prefix, target = pipeline.scope()
    settings = [f"-S {shlex.quote(f'{prefix}{key}={text}')}" for key, text in pairs]
    return " ".join(["dvc exp run", *settings, *([target] if target else [])])


def _is_in(tree: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def _value(value: Any) -> str | None:
    """A value in Hydra's override grammar; None if the grammar has no form for it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        items = [(_dict_key(str(key)), _value(item)) for key, item in value.items()]
        if any(key is None or item is None for key, item in items):
            return None
        return "{" + ",".join(f"{key}:{item}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        texts = [_quoted(str(item)) for item in value]
        return None if None in texts else "[" + ",".join(text for text in texts if text) + "]"
    return str(value)


def _quoted(text: str) -> str | None:
    """Text in double quotes, with quotes escaped, and backslashes before a quote or at the end; None if impossible."""
    if "${" in text:
        return None  # Hydra interpolates it, quoted or not
    return '"' + re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text) + '"'


def _dict_key(text: str) -> str | None:
    if not _DICT_KEY.fullmatch(text) or _NOT_TEXT.fullmatch(text):
        return None
    return re.sub(r"([\\()\[\]{}:=, ])", r"\\\1", text)
