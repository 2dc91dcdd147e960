"""`params.yaml` as frozen models: every parameter of the pipeline, its type, default and allowed values.

A missing key takes its default. An unknown key, a wrong type, a value out of range, or values that exclude each other
raise a `ParamsError` that names the key, the value and what is allowed. Every stage checks the whole file.
"""

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from stages.common.base import yaml12
from stages.common.base.errors import ParamsError
from stages.common.base.paths import PARAMS, PLAN

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]

MOST_THREADS = 1024
"""More threads than any machine has cores; many more would occupy it for minutes."""


def _by_name(tree: Any) -> Any:
    """Names of outputs are text, even if YAML reads a number."""
    return {str(name): value for name, value in (tree or {}).items()} if isinstance(tree, dict | None) else tree


class Section(BaseModel):
    """A mapping of known keys; without any, all defaults apply."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, tree: Any) -> Any:
        return {} if tree is None else tree


class Serving(Section):
    """How production serves the model: parity and bench do the same."""

    batch_size: Count = 1
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 1


class Export(Section):
    """Where the fp32 model and its evaluation data come from."""

    source: str = "models.digits:build"
    eval_data: str | None = None
    eval_layout: Literal["samples", "feeds"] = "samples"
    labels: str = "labels"
    allow_pickle: bool = False
    clean: bool = True
    opset: Annotated[int, Field(ge=13, le=25)] = 17
    seed: Seed = 0


class Calibration(Section):
    """How static quantization finds the ranges of activations."""

    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    samples: Count = 128


class WeightOnly(Section):
    """The block-wise format of MatMulNBits."""

    block_size: Literal[16, 32, 64, 128, 256] = 32
    symmetric: bool = True
    accuracy_level: Annotated[int, Field(ge=0, le=4)] = 4


Method = Literal["dynamic", "static", "weight_only", "stored"]
WeightType = Literal["QInt8", "QUInt8", "QInt4", "QUInt4"]
ActivationScale = Literal["tensor", "row"]


class NodeOverrides(Section):
    """Settings for some nodes; null keeps the setting for all nodes."""

    method: Literal[Method, "float"] | None = None
    weight_type: WeightType | None = None
    per_channel: bool | None = None
    activation_scale: ActivationScale | None = None


class Search(Section):
    """How method auto searches: how many models, the share of each tolerance to leave, what to minimize, how long."""

    max_evals: Annotated[int, Field(ge=3)] = 15
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.15
    objective: Literal["latency", "size"] = "latency"
    max_seconds: Positive = 300.0


class Quantize(Section):
    """fp32 ONNX -> INT8 ONNX."""

    method: Literal[Method, "auto", "plan"] = "dynamic"
    plan: str | None = None
    search: Search = Search()
    weight_type: WeightType = "QInt8"
    activation_type: Literal["QUInt8", "QInt8"] = "QUInt8"
    activation_scale: ActivationScale = "tensor"
    per_channel: bool = True
    portable: bool = True
    reduce_range: bool = False
    op_types: Texts | None = None
    exclude_nodes: Texts = ()
    nodes: dict[str, NodeOverrides] = {}
    calibration: Calibration = Calibration()
    weight_only: WeightOnly = WeightOnly()

    @model_validator(mode="after")
    def _values_go_together(self) -> Self:
        overridden = {f"nodes.{name}.": node for name, node in self.nodes.items() if node.method != "float"}
        for place, node in {"": NodeOverrides(), **overridden}.items():
            method, weight_type = node.method or self.method, node.weight_type or self.weight_type
            if weight_type.endswith("4") and method != "weight_only":
                raise ParamsError(
                    f"quantize.{place}weight_type is {weight_type}, which only quantize.method weight_only takes; "
                    f"{method} takes QInt8 or QUInt8."
                )
        if self.method == "plan" and self.plan is None:
            raise ParamsError(
                "quantize.method is plan, but quantize.plan is empty. Give the path of a plan.json that "
                "quantize.method auto wrote."
            )
        if self.method == "plan" and Path(self.plan or "") == PLAN:
            raise ParamsError(
                f"quantize.plan is {self.plan}, which every run of quantize overwrites. Copy it, e.g. to "
                "models/plan.json, and name the copy."
            )
        return self


class OutputTolerance(Section):
    """Tolerances that can be set for a single output."""

    abs_tol: NonNegative | None = None
    mean_tol: NonNegative | None = None
    max_nrmse: NonNegative | None = None
    min_sqnr_db: float | None = None
    min_cosine: Cosine | None = None


class Parity(OutputTolerance):
    """How far INT8 may move the answers."""

    abs_tol: NonNegative | None = 0.04
    mean_tol: NonNegative | None = 0.01
    max_nrmse: NonNegative | None = 0.1
    max_flip_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_task_drop: NonNegative | None = None
    max_batch_effect: NonNegative | None = None
    outputs: Annotated[dict[str, OutputTolerance], BeforeValidator(_by_name)] = {}
    padding: str | None = None
    advice_seconds: Positive | None = 60.0
    threshold: float | None = None
    engine: Literal["local", "ray"] = "local"


class Bench(Section):
    """How long, and at which batch sizes, speed is measured."""

    batch_sizes: Annotated[tuple[Count, ...], Field(strict=False)] = (1, 8, 32)
    max_seconds: Positive = 15.0
    target_halfwidth: Annotated[float, Field(gt=0, lt=1)] = 0.02
    memory: bool = True
    seed: Seed = 0


class Gate(Section):
    """The rules that decide."""

    min_speedup: Positive | None = 0.97
    max_size_ratio: Positive | None = 0.9
    min_samples: Count | None = 100
    require_quantized: bool = False


class Params(Section):
    """The whole of `params.yaml`: one section per stage, plus `serving`."""

    serving: Serving = Serving()
    export: Export = Export()
    quantize: Quantize = Quantize()
    parity: Parity = Parity()
    gate: Gate = Gate()
    bench: Bench = Bench()


def load(path: Path = PARAMS) -> Params:
    """Read and check `params.yaml`; without the file all defaults apply.

    Raises:
        ParamsError: the file is not YAML, or a key or a value is not allowed.
    """
    if not path.exists():
        return Params()
    try:
        return Params.model_validate(_own_sections(yaml12.load(path.read_text(encoding="utf-8"))))
    except (yaml12.YamlError, UnicodeDecodeError) as error:
        problem = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise ParamsError(f"{path.name} is not valid YAML: {problem}. Fix the file.") from error
    except ParamsError as error:
        raise ParamsError(f"{path.name}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ParamsError(f"{path.name}: {_sentence(first['loc'], first['type'], first['input'])}") from error


def _own_sections(tree: Any) -> Any:
    """The sections of this pipeline, without those of a repository that adopted it.

    A section with a name like one of ours counts as a typo, and is refused, if it has a key of that section or none.
    """
    if not isinstance(tree, dict):
        return tree
    fields = {name: set(type(section).model_fields) for name, section in Params()}

    def foreign(name: str, section: Any) -> bool:
        near = difflib.get_close_matches(name, fields, n=1)
        if not near or not isinstance(section, dict | None):
            return True
        return section is not None and bool(section) and fields[near[0]].isdisjoint(map(str, section))

    return {
        name: section
        for name, section in tree.items()
        if name in fields or not isinstance(name, str) or not foreign(name, section)
    }


def _sentence(place: tuple[int | str, ...], kind: str, value: Any) -> str:
    """What is wrong at `place`, and what its JSON schema allows there."""
    key = ".".join(part for part in place if isinstance(part, str))
    if kind in ("extra_forbidden", "invalid_key"):
        *section, name = map(str, place)
        known = list(_schema(place[:-1])["properties"])
        near = difflib.get_close_matches(name, known, n=1)
        remedy = f"Did you mean {'.'.join([*section, *near])}?" if near else f"Known keys: {', '.join(known)}."
        return f"unknown key {'.'.join([*section, name])}. {remedy}"
    schema = _schema(place)
    shown = "empty" if value is None else repr(value)
    if "properties" in schema:
        return f"{key or 'the file'} is {shown}, but keys are expected."
    near = difflib.get_close_matches(str(value), [str(choice) for choice in schema.get("enum", [])], n=1)
    return f"{key} is {shown}; allowed: {_allowed(schema)}{f'; did you mean {near[0]}?' if near else '.'}"


def _schema(place: tuple[int | str, ...]) -> dict[str, Any]:
    """The JSON schema of the value at `place`, where the key `nullable` says whether it may be null."""
    root = schema = _whole_schema()
    nullable = False
    for part in (None, *place):
        if isinstance(part, int):
            schema = schema["items"]
        elif part is not None:
            schema = schema.get("properties", {}).get(part) or schema["additionalProperties"]
        either = schema.get("anyOf", [schema])
        schema, nullable = either[0], {"type": "null"} in either
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema | {"nullable": nullable}


@cache
def _whole_schema() -> dict[str, Any]:
    return Params.model_json_schema()


def _allowed(schema: dict[str, Any]) -> str:
    end = ", or null" if schema["nullable"] else ""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"])) + end
    names = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "text"}
    names |= {"array": "a list", "object": "a mapping of names"}
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    bounds = " and ".join(f"{word} {schema[bound]:g}" for bound, word in words.items() if bound in schema)
    return names[schema["type"]] + (f", {bounds}" if bounds else "") + end
