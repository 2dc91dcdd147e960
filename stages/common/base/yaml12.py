"""Reading YAML 1.2, as DVC does: 1e-3 is a number, only true and false are booleans, 010 is ten, 1:30 is text.

PyYAML follows YAML 1.1, which reads each of these differently. Dates stay text: no key of ours holds one.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
)
_BASES = {"0b": 2, "0o": 8, "0x": 16}


class YamlError(ValueError):
    """The text is not YAML, or a mapping holds a key twice. `str()` says what and on which line."""


def load(text: str) -> Any:
    """Parse one document into dicts, lists, text, numbers, booleans and None; raises YamlError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it holds a character that YAML does not allow"
        raise YamlError(f"{problem} on line {mark.line + 1}" if mark else problem) from error


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own interface

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            try:
                problem = f"duplicate key {key!r}" if key in seen else ""
            except TypeError:  # it has no hash
                problem = "a key that is a mapping or a list (text in braces needs quotes)"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        digits = node.value.replace("_", "")
        return int(digits, _BASES.get(digits.lstrip("+-")[:2], 10))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        digits = node.value.replace("_", "").lower()
        return float(re.sub(r"\.(?=inf|nan)", "", digits))


for _name, _pattern, _first in _PLAIN:
    _starts = [*_first, ""] if _name == "null" else list(_first)
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
