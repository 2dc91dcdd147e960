"""What inspect prints."""

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir
from tabulate import tabulate

from stages.common.graph.walk import all_nodes
from stages.inspect.stage import Inspection

ROWS = 8


def render(inspection: Inspection) -> str:
    """Interface, weights, what each method would do, likely problems, and params to start from."""
    blocks = [_facts(inspection)]
    if inspection.refused:
        blocks.append(f"The pipeline refuses this model. {inspection.refused}")
        return "\n\n".join(blocks)
    if inspection.nodes:
        blocks.append(_weights(inspection))
    blocks.append(_methods(inspection))
    if inspection.trouble:
        blocks.append("\n".join(f"- {sentence}" for sentence in inspection.trouble))
    return "\n\n".join([*blocks, _start(inspection)])


def _facts(inspection: Inspection) -> str:
    model = inspection.model
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opset_imports.items())
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    operators = Counter(node.op_type for node in all_nodes(model)).most_common()
    rows = [
        ("model", f"{inspection.path.as_posix()}, {inspection.mb:.2f} MB, opset {opsets}"),
        ("inputs", _shortened([_declared(value) for value in inputs])),
        ("outputs", _shortened([_declared(value) for value in model.graph.outputs])),
        ("operators", _shortened([f"{count} {name}" for name, count in operators])),
    ]
    return str(tabulate(rows, tablefmt="plain"))


def _weights(inspection: Inspection) -> str:
    """Bytes of weights by operator type; a shared weight counts once, for its first reader."""
    readers: dict[str, tuple[str, int]] = {}
    for node in inspection.nodes:
        for weight in node.weights:
            readers.setdefault(weight.name, (node.op_type, weight.nbytes))
    by_type: Counter[str] = Counter()
    for op_type, size in readers.values():
        by_type[op_type] += size
    total, largest = inspection.mb * 1e6, by_type.most_common(ROWS)
    rows = [(name, f"{size / 1e6:.3f}", f"{size / total:.0%}") for name, size in largest]
    headers = ["weights of", "MB", "of the file"]
    return str(tabulate(rows, headers=headers, disable_numparse=True, stralign="right"))


def _methods(inspection: Inspection) -> str:
    rows = [
        (
            predicted.method,
            len(predicted.nodes),
            f"{predicted.share:.0%}",
            f"{predicted.mb:.2f}",
            f"{inspection.mb / predicted.mb:.2f}",
        )
        for predicted in inspection.predictions
    ]
    headers = ["method", "nodes", "of the weights", "MB to expect", "times smaller"]
    return str(tabulate(rows, headers=headers, disable_numparse=True, stralign="right"))


def _start(inspection: Inspection) -> str:
    if inspection.start is None:
        return "No method makes this file smaller by a tenth: ship fp32."
    lines = ["Start with these params:", "", "export:", f"  source: {inspection.path.as_posix()}"]
    lines += ["  eval_data: models/samples.npz  # real inputs, an array per input", "quantize:"]
    return "\n".join([*lines, f"  method: {inspection.start}"])


def _declared(value: ir.Value) -> str:
    dtype = str(value.dtype).lower() if value.dtype is not None else "sequence or map"
    shape = "" if value.shape is None else f" [{', '.join('?' if size is None else str(size) for size in value.shape)}]"
    return f"{value.name or ''} {dtype}{shape}"


def _shortened(listed: Sequence[str]) -> str:
    more = f" and {len(listed) - ROWS} more" if len(listed) > ROWS else ""
    return ", ".join(listed[:ROWS]) + more
