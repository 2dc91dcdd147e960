"""`params.yaml` as frozen dataclasses: every knob of the pipeline, its type, its default and what is allowed.

A key that is absent takes the default that stands here. An unknown key, a wrong type or a value out of range is a
`ParamsError` that names the key, the value and what is allowed.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.common.base.errors import ParamsError
from stages.common.base.paths import PARAMS


@dataclass(frozen=True)
class Allowed:
    """The values that a key may take, beyond its type. For a list it speaks of each item."""

    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def refuses(self, value: Any) -> bool:
        """Whether `value`, which has the right type, is out of range."""
        if self.choices:
            return value not in self.choices
        return (
            (self.at_least is not None and value < self.at_least)
            or (self.above is not None and value <= self.above)
            or (self.at_most is not None and value > self.at_most)
            or (self.below is not None and value >= self.below)
        )

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(self.choices)
        bounds = (
            (self.at_least, "at least"),
            (self.above, "more than"),
            (self.at_most, "at most"),
            (self.below, "less than"),
        )
        return " and ".join(f"{words} {bound:g}" for bound, words in bounds if bound is not None)


def _key(default: Any, *choices: str, **bounds: float) -> Any:
    return field(default=default, metadata={"allowed": Allowed(choices=choices, **bounds)})


@dataclass(frozen=True)
class Serving:
    """What production does: parity and bench judge the model there."""

    batch_size: int = _key(1, at_least=1)
    threads: int = _key(1, at_least=1)


@dataclass(frozen=True)
class Export:
    """Where the fp32 model and its evaluation data come from."""

    source: str = "models.digits:build"
    eval_data: str | None = None
    eval_layout: Literal["samples", "feeds"] = _key("samples", "samples", "feeds")
    opset: int = _key(17, at_least=13, at_most=25)
    seed: int = _key(0, at_least=0)


@dataclass(frozen=True)
class Calibration:
    """How static quantization finds the ranges of activations."""

    method: str = _key("minmax", "minmax", "entropy", "percentile")
    samples: int = _key(128, at_least=1)


@dataclass(frozen=True)
class WeightOnly:
    """The block-wise format of MatMulNBits."""

    block_size: int = _key(32, at_least=16, at_most=256)
    symmetric: bool = True
    accuracy_level: int = _key(4, at_least=0, at_most=4)


@dataclass(frozen=True)
class Quantize:
    """fp32 ONNX -> INT8 ONNX."""

    method: str = _key("dynamic", "dynamic", "static", "weight_only")
    weight_type: str = _key("QInt8", "QInt8", "QUInt8", "QInt4", "QUInt4")
    activation_type: str = _key("QUInt8", "QUInt8", "QInt8")
    per_channel: bool = True
    reduce_range: bool = False
    op_types: tuple[str, ...] | None = None
    exclude_nodes: tuple[str, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    weight_only: WeightOnly = field(default_factory=WeightOnly)


@dataclass(frozen=True)
class OutputTolerance:
    """Tolerances of one output, in place of those for all."""

    abs_tol: float | None = _key(None, at_least=0)
    mean_tol: float | None = _key(None, at_least=0)
    min_sqnr_db: float | None = None
    min_cosine: float | None = _key(None, at_least=-1, at_most=1)


@dataclass(frozen=True)
class Parity:
    """How far INT8 may move the answers."""

    abs_tol: float | None = _key(0.04, at_least=0)
    mean_tol: float | None = _key(0.01, at_least=0)
    min_sqnr_db: float | None = None
    min_cosine: float | None = _key(None, at_least=-1, at_most=1)
    max_flip_rate: float | None = _key(None, above=0, below=1)
    max_task_drop: float | None = _key(None, at_least=0)
    outputs: dict[str, OutputTolerance] = field(default_factory=dict)
    threshold: float | None = None


@dataclass(frozen=True)
class Bench:
    """How long, and where, speed is measured."""

    batch_sizes: tuple[int, ...] = _key((1, 8, 32), at_least=1)
    max_seconds: float = _key(15.0, above=0)
    target_halfwidth: float = _key(0.02, above=0, below=1)
    memory: bool = True
    seed: int = _key(0, at_least=0)


@dataclass(frozen=True)
class Gate:
    """The rules that decide."""

    min_speedup: float | None = _key(0.97, above=0)
    max_size_ratio: float | None = _key(0.9, above=0)
    require_quantized: bool = False


@dataclass(frozen=True)
class Params:
    """The whole of `params.yaml`, one section a stage, plus `serving`."""

    serving: Serving = field(default_factory=Serving)
    export: Export = field(default_factory=Export)
    quantize: Quantize = field(default_factory=Quantize)
    parity: Parity = field(default_factory=Parity)
    bench: Bench = field(default_factory=Bench)
    gate: Gate = field(default_factory=Gate)


def load(path: Path = PARAMS) -> Params:
    """Read and check `params.yaml`, as YAML 1.2 like DVC does; without the file every key has its default.

    Raises:
        ParamsError: the file is no YAML, or a key or a value is not allowed.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        return Params()
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        problem = getattr(error, "problem", None) or "not readable as text"
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        raise ParamsError(f"{path.name} is no valid YAML{place}: {problem}. Mend the file.") from error
    return typing.cast(Params, _section(Params, {} if tree is None else tree, "", path.name))


def _section(kind: type, tree: Any, prefix: str, file: str) -> Any:
    if tree is None:
        return kind()
    if not isinstance(tree, Mapping):
        raise ParamsError(f"{file}: {prefix.rstrip('.') or 'the file'} is {tree!r}, where keys are expected.")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in tree:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            help_ = f"Did you mean {prefix}{near[0]}?" if near else f"Known here: {', '.join(fields)}."
            raise ParamsError(f"{file}: unknown key {prefix}{name}. {help_}")
    values = {
        name: _value(hints[name], value, fields[name].metadata.get("allowed", Allowed()), prefix + name, file)
        for name, value in tree.items()
    }
    return kind(**values)


def _value(hint: Any, value: Any, allowed: Allowed, key: str, file: str) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        return _section(typing.cast(type, hint), value, f"{key}.", file)
    origin = typing.get_origin(hint)
    if origin is Literal:
        hint = str
    if origin is tuple:
        if not isinstance(value, list):
            raise _refused(key, value, "a list", file)
        item = typing.get_args(hint)[0]
        return tuple(_value(item, each, allowed, key, file) for each in value)
    if origin is dict:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise _refused(key, value, "a mapping of names", file)
        item = typing.get_args(hint)[1]
        return {str(name): _value(item, each, allowed, f"{key}.{name}", file) for name, each in value.items()}
    return _scalar(hint, value, allowed, key, file)


def _scalar(hint: Any, value: Any, allowed: Allowed, key: str, file: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[hint]
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise _refused(key, value, f"{words} ({allowed})" if str(allowed) else words, file)
    if allowed.refuses(value):
        near = difflib.get_close_matches(str(value), allowed.choices, n=1)
        raise _refused(key, value, str(allowed) + (f"; did you mean {near[0]}?" if near else ""), file)
    return value


def _refused(key: str, value: Any, allowed: str, file: str) -> ParamsError:
    shown = "empty" if value is None else repr(value)
    return ParamsError(
        f"{file}: {key} is {shown}; allowed: {allowed.rstrip('.')}{'' if allowed.endswith('?') else '.'}"
    )
