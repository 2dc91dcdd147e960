"""Conversions between the protobufs that tests write and the models that the stages work on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort
from onnx import ModelProto
from onnx_ir.passes import PassResult

from stages.common.graph import equivalence
from stages.common.model import ir_conversion, model_file, sessions
from stages.common.model.sessions import Feed


def ir_model(proto: ModelProto) -> ir.Model:
    """The model of a protobuf, which is not changed."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    return ir_conversion.from_proto(copy)


def opened(proto: ModelProto) -> ort.InferenceSession:
    """A session over a model."""
    return sessions.open_session(proto.SerializeToString())


def applied(apply: Callable[..., PassResult], proto: ModelProto, *arguments: object) -> tuple[ModelProto, bool]:
    """The result of a pass on a model, and whether the pass reports a change."""
    result = apply(ir_model(proto), *arguments)
    return ir_conversion.to_proto(result.model), result.modified


def reference(proto: ModelProto, feeds: Sequence[Feed]) -> equivalence.Reference:
    """The answers of a model to these feeds."""
    return equivalence.reference(opened(proto), feeds, "model")


def publish(proto: ModelProto, path: Path) -> None:
    """Write a model as the stages do."""
    with model_file.staged(ir_model(proto), path):
        pass


def stored(path: Path) -> ModelProto:
    """The model in a file, with all weights in the protobuf."""
    return ir_conversion.to_proto(model_file.read(path, "export"))
