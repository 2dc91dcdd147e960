"""From `export.source` to `artifacts/`: build or read the model, run it on its evaluation data, publish both."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from tabulate import tabulate

from stages.common.base import files, paths
from stages.common.base.errors import StageError
from stages.common.base.params import Export
from stages.common.data import evaldata, feeding
from stages.common.model import ir_conversion, model_file, sessions
from stages.export import eval_files, sklearn_model, source
from stages.export.drift import Drift, measure

MODELS = Path("models")
"""The folder that dvc.yaml declares as a dependency of export: what changes elsewhere, DVC does not see."""


@dataclass(frozen=True)
class Exported:
    """A model that is not published yet, its evaluation data, and what it was made from.

    Attributes:
        model: the fp32 ONNX model.
        inputs: evaluation inputs by name, axis 0 counting samples (or feeds).
        labels: one per sample, where known.
        origin: what to call the model in an error.
        framework: the scikit-learn estimator and its own inputs, or None where the source was ONNX already.
    """

    model: ir.Model
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    origin: str
    framework: sklearn_model.Fitted | None


def export(params: Export) -> str:
    """Write `artifacts/model.onnx`, its sidecar, `artifacts/eval` and `metrics/export.json`.

    Returns:
        What was made, for a person.

    Raises:
        StageError: the source cannot be built or read, does not run in fp32, or does not fit its evaluation data.
    """
    with (
        _exported(params) as exported,
        model_file.staged(exported.model, paths.FP32_MODEL) as model,
        files.replacing(paths.EVAL) as folder,
    ):
        _check_counts(exported)
        evaldata.write(folder, exported.inputs, exported.labels, params.eval_layout, params.seed)
        data = evaldata.EvalData(folder)
        session = sessions.open_session(model, name=exported.origin)
        feeding.check_fit(session, data.inputs, data.layout)
        drift = measure(session, exported.model, data, exported.framework, exported.origin)
        counts = {"samples": data.samples, **{each: len(data.indices(each)) for each in ("search", "judge")}}
    files.write_json(paths.EXPORT, {"drift": drift.metrics(), "eval": counts, **drift.notes()})
    _warn_of_untracked(params)
    return _told(exported, drift, counts)


@contextmanager
def _exported(params: Export) -> Iterator[Exported]:
    if not source.is_callable(params.source):
        with _from_file(params) as exported:
            yield exported
        return
    if params.eval_data is not None:
        raise StageError(
            f"export.eval_data is {params.eval_data}, but the callable {params.source} returns the evaluation data "
            "itself. Set export.eval_data to null."
        )
    built = source.build(params.source, params.seed)
    origin = f"the model of {params.source}"
    if source.is_onnx(built.model):
        if ir_conversion.has_external_data(built.model):
            raise StageError(
                f"export.source {params.source} returned a model without its weights: they are external data. "
                "Load it with them (onnx.load does), or name its path as export.source."
            )
        model = ir_conversion.from_proto(built.model)
        yield Exported(model, source.by_name(built.inputs, _input_names(model)), built.labels, origin, None)
    elif source.is_sklearn(built.model):
        inputs = sklearn_model.onnx_inputs(built.inputs)
        model = ir_conversion.from_proto(sklearn_model.convert(built.model, inputs, params.opset))
        # skl2onnx spells names its own way (no spaces, no slashes), and keeps their order.
        inputs = dict(zip(_input_names(model), inputs.values(), strict=True))
        yield Exported(model, inputs, built.labels, origin, sklearn_model.Fitted(built.model, built.inputs))
    else:
        raise StageError(
            f"export.source {params.source} returned a model of type {type(built.model).__name__}. "
            "Return a fitted scikit-learn estimator, or export the model yourself and return an onnx.ModelProto."
        )


@contextmanager
def _from_file(params: Export) -> Iterator[Exported]:
    path = source.onnx_path(params.source)
    model = model_file.read(path, "your own export")
    if params.eval_data is None:
        raise StageError(
            f"export.source is the file {path}, and export.eval_data is null: without real inputs nothing can be "
            f"proved. Name an .npz or a folder of .npy files with arrays for {', '.join(_input_names(model))}."
        )
    with eval_files.opened(Path(params.eval_data), _input_names(model), paths.ARTIFACTS) as (inputs, labels):
        yield Exported(model, inputs, labels, path.as_posix(), None)


def _input_names(model: ir.Model) -> list[str]:
    """The inputs that have no default among the initializers."""
    return [value.name or "" for value in model.graph.inputs if not value.is_initializer()]


def _check_counts(exported: Exported) -> None:
    """Every array must have axis 0 and count the same, above none.

    Raises:
        StageError: naming the array that does not.
    """
    arrays = dict(exported.inputs) | ({} if exported.labels is None else {eval_files.LABELS: exported.labels})
    for name, array in arrays.items():
        if array.ndim == 0:
            raise StageError(
                f"The evaluation array '{name}' is a single number, so it counts no samples. "
                "Stack one value a feed along axis 0, and set export.eval_layout to feeds."
            )
    counts = {name: len(array) for name, array in arrays.items()}
    if 0 in counts.values():
        empty = next(name for name, count in counts.items() if count == 0)
        raise StageError(f"The evaluation array '{empty}' holds no samples. Give at least one, better a thousand.")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise StageError(f"The evaluation arrays differ in their number of samples: {listed}. Give one row for each.")


def _warn_of_untracked(params: Export) -> None:
    named = {params.source: params.source}
    if source.is_callable(params.source):
        named = {params.source: params.source.split(":")[0].replace(".", "/")}
    if params.eval_data:
        named[params.eval_data] = params.eval_data
    for each, path in named.items():
        if not Path(path).resolve().is_relative_to(MODELS.resolve()):
            print(
                f"Note: {each} is outside of {MODELS}/, so DVC does not see when it changes. "
                "Move it there, or add it to the deps of export in dvc.yaml.",
                file=sys.stderr,
            )


def _told(exported: Exported, drift: Drift, counts: Mapping[str, int]) -> str:
    size = model_file.size_mb(paths.FP32_MODEL)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in exported.model.opset_imports.items())
    rows: list[tuple[str, Any]] = [
        ("model", f"{paths.FP32_MODEL.as_posix()}, {size:.2f} MB, opset {opsets}"),
        ("evaluation", f"{counts['samples']} samples: {counts['search']} to search, {counts['judge']} to judge"),
        ("labels", "none" if exported.labels is None else "known"),
    ]
    return f"{tabulate(rows, tablefmt='plain')}\n\n{drift.sentence()}"
