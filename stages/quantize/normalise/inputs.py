"""Initializers that are listed as inputs, as every one had to be below IR version 4."""

from onnx import ModelProto

from stages.quantize.graphs import copy

CONSTANT_SINCE = 4
"""The IR version since which an initializer that is no input is allowed, and one that is may be overridden."""


def drop_listed_initializers(model: ModelProto) -> tuple[ModelProto, bool]:
    """Take initializers off the graph's inputs, so that they are constants.

    Below IR version 4 they are constants already. From there on a listed one may be overridden by the caller: where
    only some are listed that is on purpose (adapters), and they stay; where all are it is a habit of old exporters.
    """
    constants = {each.name for each in model.graph.initializer}
    listed = {each.name for each in model.graph.input} & constants
    if not listed or (model.ir_version >= CONSTANT_SINCE and listed != constants):
        return model, False
    dropped = copy(model)
    kept = [each for each in model.graph.input if each.name not in listed]
    del dropped.graph.input[:]
    dropped.graph.input.extend(kept)
    dropped.ir_version = max(model.ir_version, CONSTANT_SINCE)
    return dropped, True
