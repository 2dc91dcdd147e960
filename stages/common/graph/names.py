"""Unique names for values and nodes; deterministic."""

import onnx_ir as ir


class Names:
    """The names taken in a model."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str | None] = set()
        for graph in model.graphs():
            self._taken.update(value.name for value in (*graph.inputs, *graph.initializers.values()))
            for node in graph:
                self._taken.add(node.name)
                self._taken.update(value.name for value in node.outputs)

    def fresh(self, stem: str) -> str:
        """`stem` if it is free, else `stem_1`, `stem_2`, ...; taken from now on."""
        name, number = stem, 0
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name
