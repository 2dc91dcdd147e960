"""Dropout, which does nothing at inference; ONNX Runtime leaves it out at load even where it is set to training.

Where calibration makes its output visible, ONNX Runtime has to keep it, and would draw random numbers.
"""

from onnx import ModelProto, NodeProto

from stages.quantize.graphs import all_nodes, copy, used_names


def silence(model: ModelProto) -> tuple[ModelProto, bool]:
    """Make Identity of every Dropout whose mask is not used."""
    if not any(node.op_type == "Dropout" and not node.domain for node in all_nodes(model)):
        return model, False
    silent = copy(model)
    used = used_names(silent.graph)
    modified = False
    for node in all_nodes(silent):
        if node.op_type == "Dropout" and not node.domain and not used.intersection(node.output[1:]):
            _make_identity(node)
            modified = True
    return (silent, True) if modified else (model, False)


def _make_identity(node: NodeProto) -> None:
    node.op_type = "Identity"
    node.ClearField("attribute")
    del node.input[1:]
    del node.output[1:]
