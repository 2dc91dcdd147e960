"""Converting the default domain to an opset that the quantized operators need."""

import onnx
import onnx_ir as ir
from onnx import ModelProto, version_converter
from onnx_ir.passes import PassResult

from stages.common.graph.passes.drop_listed_initializers import CONSTANT_SINCE
from stages.common.graph.walk import all_nodes, input_of
from stages.common.model import ir_conversion

_PLACES_SINCE = 11
"""Since this opset, Resize says where its samples lie; before, ONNX Runtime divided the index by the scale."""


def apply(model: ir.Model, version: int) -> PassResult:
    """Convert the default domain to `version` if it is older; the given model is not changed.

    Raises:
        ValueError: the model has an operator that `version` lacks.
    """
    if model.opset_imports.get("", version) >= version:
        return PassResult(model, modified=False)
    unknown = {node.op_type for node in all_nodes(model) if not node.domain and not onnx.defs.has(node.op_type)}
    if unknown:
        raise ValueError(f"opset {version} has no {' and no '.join(sorted(unknown))}")

    def convert(proto: ModelProto) -> ModelProto:
        ends, known = (list(proto.graph.input), list(proto.graph.output)), list(proto.graph.value_info)
        proto.ir_version = max(proto.ir_version, CONSTANT_SINCE)  # older versions require all to be inputs
        converted: ModelProto = version_converter.convert_version(proto, version)
        # The converter drops the metadata, changes shapes of inputs and outputs, and adds shapes in between.
        converted.ClearField("metadata_props")
        converted.metadata_props.extend(proto.metadata_props)
        for field, values in zip(("input", "output", "value_info"), (*ends, known), strict=True):
            converted.graph.ClearField(field)
            getattr(converted.graph, field).extend(values)
        return converted

    converted = ir_conversion.transformed(model, convert)
    if model.opset_imports[""] < _PLACES_SINCE <= version:
        for node in all_nodes(converted):
            if node.op_type == "Resize" and not node.domain:
                _sample_as_before(node)
    return PassResult(converted, modified=True)


def _sample_as_before(node: ir.Node) -> None:
    """The converter leaves the default of newer opsets, which gives other answers, or the same more slowly."""
    tensor = ir.convenience.get_const_tensor(scales) if (scales := input_of(node, 2)) is not None else None
    shrinks = tensor is not None and bool((tensor.numpy() < 1).any())
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    node.attributes.add(ir.AttrString("nearest_mode", "ceil" if shrinks else "floor"))
