"""What inspect prints."""

import textwrap
from collections.abc import Iterable, Mapping

from tabulate import tabulate

from stages.common.base.command import WIDTH, fold
from stages.inspect.stage import Inspection

ROWS = 8


def render(inspection: Inspection) -> str:
    """Interface, weights, what each method would do, likely problems, and params to start from."""
    blocks = [_facts(inspection)]
    if inspection.refused:
        blocks.append(fold(f"The pipeline refuses this model. {inspection.refused}"))
        return "\n\n".join(blocks)
    if inspection.weights:
        blocks.append(_weights(inspection))
    blocks.append(_methods(inspection))
    if inspection.trouble:
        blocks.append("\n".join(fold(f"- {sentence}", "  ") for sentence in inspection.trouble))
    return "\n\n".join([*blocks, _start(inspection)])


def _facts(inspection: Inspection) -> str:
    opsets = ", ".join(f"{domain} {version}" for domain, version in inspection.opsets.items())
    operators = [f"{count} {name}" for name, count in inspection.operators.items()]
    rows = [
        ("model", f"{inspection.path.as_posix()}, {inspection.mb:.2f} MB, opset {opsets}"),
        ("inputs", _shortened(_pairs(inspection.inputs))),
        ("outputs", _shortened(_pairs(inspection.outputs))),
        ("operators", _shortened(operators)),
    ]
    filled = [(label, textwrap.fill(text, WIDTH - 12)) for label, text in rows]
    return str(tabulate(filled, tablefmt="plain"))


def _weights(inspection: Inspection) -> str:
    total = inspection.mb * 1e6
    rows = [(name, f"{size / 1e6:.3f}", f"{size / total:.0%}") for name, size in inspection.weights.items()]
    return str(
        tabulate(rows[:ROWS], headers=["weights of", "MB", "of the file"], disable_numparse=True, stralign="right")
    )


def _methods(inspection: Inspection) -> str:
    rows = [
        (one.method, len(one.nodes), f"{one.share:.0%}", f"{one.mb:.2f}", f"{inspection.mb / one.mb:.2f}")
        for one in inspection.predictions
    ]
    headers = ["method", "nodes", "of the weights", "MB to expect", "times smaller"]
    return str(tabulate(rows, headers=headers, disable_numparse=True, stralign="right"))


def _start(inspection: Inspection) -> str:
    if inspection.start is None:
        return fold("No method makes this file smaller by a tenth: ship fp32.")
    lines = ["Start with these params:", "", "export:", f"  source: {inspection.path.as_posix()}"]
    lines += ["  eval_data: models/samples.npz  # real inputs, an array per input", "quantize:"]
    return "\n".join([*lines, f"  method: {inspection.start}"])


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [f"{name} {declared}" for name, declared in values.items()]


def _shortened(parts: Iterable[str]) -> str:
    listed = list(parts)
    more = f" and {len(listed) - ROWS} more" if len(listed) > ROWS else ""
    return ", ".join(listed[:ROWS]) + more
