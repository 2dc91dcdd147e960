"""Adding the content of one YAML file to another as text, so that comments and layout of both stay."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from stages.common.base.errors import StageError

JOINED = frozenset({"stages", "metrics", "plots", "artifacts"})
"""The keys of dvc.yaml whose children may come from both sides. A section of params.yaml belongs to one."""


@dataclass(frozen=True)
class Block:
    """A top-level key of a YAML file.

    Attributes:
        key: its name.
        names: of its children; empty for a list.
        start: its first line, comments above it included.
        first: the first line below the key.
        end: the line after its last content.
        indent: of its children.
        block: whether its children stand on lines of their own.
    """

    key: str
    names: tuple[str, ...]
    start: int
    first: int
    end: int
    indent: int
    block: bool


def added(theirs: str, ours: str, file: str) -> str:
    """`theirs` with the content of `ours`: children of a key that both have below theirs, other keys at the end.

    Args:
        theirs: YAML text that stays, to the letter.
        ours: YAML text to add.
        file: to name in an error.

    Raises:
        StageError: both have the same child of a key, or a key with values that cannot be joined.
    """
    lines, new = theirs.splitlines(), ours.splitlines()
    present = {block.key: block for block in _blocks(theirs, file)}
    insertions: list[tuple[int, list[str]]] = []
    for block in _blocks(ours, file):
        existing = present.get(block.key)
        if existing is None:
            insertions.append((len(lines), ["", *new[block.start : block.end]]))
            continue
        if twice := set(existing.names) & set(block.names):
            raise StageError(_collision(f"{block.key}.{sorted(twice)[0]}", file))
        if block.key not in JOINED or not (existing.block and block.block) or bool(existing.names) != bool(block.names):
            raise StageError(_collision(block.key, file))
        shift = existing.indent - block.indent
        children = [_shifted(line, shift) for line in new[block.first : block.end]]
        insertions.append((existing.end, ["", *children] if block.names else children))
    for at, text in sorted(insertions, key=lambda insertion: insertion[0], reverse=True):
        same = [other for where, other in insertions if where == at]
        if text is same[0]:
            lines[at:at] = [line for part in same for line in part]
    return "\n".join(lines) + "\n"


def added_lines(theirs: str, ours: str, _file: str) -> str:
    """`theirs` with the lines of `ours` that it lacks, comments aside."""
    present = set(theirs.splitlines())
    missing = [line for line in ours.splitlines() if line and not line.startswith("#") and line not in present]
    return "".join(f"{line}\n" for line in [*theirs.splitlines(), *missing])


def _collision(key: str, file: str) -> str:
    return (
        f"{file} has {key} already, and this pipeline needs that name. Put the pipeline into a folder of its own, "
        "where names are free: python -m stages.init <repository>/int8"
    )


def _blocks(text: str, file: str) -> Iterator[Block]:
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise StageError(f"{file} is not valid YAML: {' '.join(str(error).split())}. Fix it first.") from error
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise StageError(f"{file} is not a mapping of keys. Fix it first.")
    lines = text.splitlines()
    previous = 0
    for key, value in root.value:
        start = key.start_mark.line
        while start > previous and re.fullmatch(r"#.*", lines[start - 1]):
            start -= 1
        end = _last_line(value) + 1
        mapping = isinstance(value, yaml.MappingNode)
        collection = isinstance(value, yaml.CollectionNode) and bool(value.value)
        yield Block(
            key=key.value,
            names=tuple(child.value for child, _ in value.value) if mapping else (),
            start=start,
            first=key.start_mark.line + 1,
            end=end,
            indent=value.start_mark.column,
            block=collection and not value.flow_style,
        )
        previous = end


def _last_line(node: yaml.Node) -> int:
    """The last line that holds content of a node: marks of block collections end at what follows them."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    line: int = node.end_mark.line
    return line - 1 if node.end_mark.column == 0 and line > node.start_mark.line else line


def _shifted(line: str, by: int) -> str:
    if by >= 0:
        return " " * by + line if line.strip() else line
    return line[min(-by, len(line) - len(line.lstrip())) :]
