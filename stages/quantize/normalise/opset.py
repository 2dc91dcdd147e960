"""Opset imports: one for each domain that is used, in its right spelling; and the default one new enough."""

import onnx
from onnx import ModelProto, NodeProto, helper, version_converter

from stages.quantize.graphs import all_nodes, copy, opset, sort_nodes

OLDEST = 13
"""Quantization knows scales for each channel since this opset, and ONNX Runtime's INT8 fusions expect it."""

_MICROSOFT_VERSION = 1


def repair_imports(model: ModelProto) -> tuple[ModelProto, bool]:
    """Spell the default domain as "", import each domain once and only if it is used, and the default one always."""
    used = {"", *(_spelt(node.domain) for node in all_nodes(model)), *(function.domain for function in model.functions)}
    versions: dict[str, int] = {}
    for each in model.opset_import:
        domain = _spelt(each.domain)
        if domain in used:
            versions[domain] = max(versions.get(domain, 0), each.version)
    versions.setdefault("", OLDEST)
    if "com.microsoft" in used:
        versions.setdefault("com.microsoft", _MICROSOFT_VERSION)
    same = [(each.domain, each.version) for each in model.opset_import] == list(versions.items())
    if same and all(node.domain != "ai.onnx" for node in all_nodes(model)):
        return model, False
    repaired = copy(model)
    del repaired.opset_import[:]
    repaired.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
    for node in all_nodes(repaired):
        node.domain = _spelt(node.domain)
    return repaired, True


def convert(model: ModelProto) -> tuple[ModelProto, bool]:
    """Convert the default domain to `OLDEST` if it is older."""
    if (opset(model) or OLDEST) >= OLDEST:
        return model, False
    removed = sorted({node.op_type for node in all_nodes(model) if _is_removed(node)})
    if removed:
        raise ValueError(f"opset {OLDEST} has no {' and no '.join(removed)}")
    converted: ModelProto = version_converter.convert_version(model, OLDEST)
    # The converter forgets the metadata, infers other shapes for inputs and outputs, and appends constants at the end.
    if not converted.metadata_props:
        converted.metadata_props.extend(model.metadata_props)
    for field in ("input", "output"):
        converted.graph.ClearField(field)
        getattr(converted.graph, field).extend(getattr(model.graph, field))
    sort_nodes(converted.graph)
    return converted, True


def _is_removed(node: NodeProto) -> bool:
    return not node.domain and not onnx.defs.has(node.op_type)


def _spelt(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
