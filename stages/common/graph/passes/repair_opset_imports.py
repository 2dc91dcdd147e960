"""Opset imports: always the default domain, spelled "", and others only if they are used."""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.walk import MICROSOFT, all_nodes

DEFAULT = 13
"""The version of the default domain if a model imports none."""


def apply(model: ir.Model) -> PassResult:
    """Spell the default domain "", import each domain that is used, and remove the others."""
    used = {
        "",
        *(node.domain for node in all_nodes(model)),
        *(function.domain for function in model.functions.values()),
    }
    versions: dict[str, int] = {}
    for domain, version in model.opset_imports.items():
        spelt = "" if domain == "ai.onnx" else domain
        if spelt in used:
            versions[spelt] = max(versions.get(spelt, 0), version)
    versions.setdefault("", DEFAULT)
    if MICROSOFT in used:
        versions.setdefault(MICROSOFT, 1)
    if list(versions.items()) == list(model.opset_imports.items()):
        return PassResult(model, modified=False)
    model.opset_imports.clear()
    model.opset_imports.update(versions)
    return PassResult(model, modified=True)
