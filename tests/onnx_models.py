"""Between the protobufs that tests write and the models that the stages work on."""

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
    """The model of a protobuf, which stays as it is."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    return ir_conversion.from_proto(copy)


def opened(proto: ModelProto) -> ort.InferenceSession:
    """A session over a model."""
    return sessions.open_session(proto.SerializeToString())


def applied(apply: Callable[..., PassResult], proto: ModelProto, *arguments: object) -> tuple[ModelProto, bool]:
    """What a pass makes of a model, and whether it says that it changed it."""
    result = apply(ir_model(proto), *arguments)
    return ir_conversion.to_proto(result.model), result.modified


def reference(proto: ModelProto, feeds: Sequence[Feed]) -> equivalence.Reference:
    """What a model does on these feeds."""
    return equivalence.reference(opened(proto), feeds, "model")


def publish(proto: ModelProto, path: Path) -> None:
    """Write a model as the stages do."""
    with model_file.staged(ir_model(proto), path):
        pass


def stored(path: Path) -> ModelProto:
    """What a file holds, all weights in the protobuf."""
    return ir_conversion.to_proto(model_file.read(path, "export"))
