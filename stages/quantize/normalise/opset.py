"""Opset imports: one for each domain that is used, in its right spelling."""

from onnx import ModelProto, helper

from stages.quantize.graphs import all_nodes, copy

_MICROSOFT_VERSION = 1


def repair_imports(model: ModelProto) -> tuple[ModelProto, bool]:
    """Spell the default domain as "", import each domain once and only if it is used, and the default one always."""
    used = {"", *(_spelt(node.domain) for node in all_nodes(model)), *(function.domain for function in model.functions)}
    versions: dict[str, int] = {}
    for each in model.opset_import:
        domain = _spelt(each.domain)
        if domain in used:
            versions[domain] = max(versions.get(domain, 0), each.version)
    versions.setdefault("", 13)
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


def _spelt(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
