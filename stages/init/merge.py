"""Adding one YAML file to another as text, so that comments and layout of both stay."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from stages.common.base.errors import StageError


class CollisionError(StageError):
    """A name that this pipeline needs is taken. Its message is a clause without a full stop."""


JOINED = frozenset({"stages", "metrics", "plots", "artifacts"})
"""The keys of dvc.yaml whose children may come from both files. A section of params.yaml belongs to one file."""


@dataclass(frozen=True)
class Block:
    """A top-level key of a YAML file.

    Attributes:
        names: of its children, or of the items of a list.
        listed: whether it is a list.
        start: its first line, including comments above it.
        first: the line after the key.
        end: the line after its last content.
        indent: of its children.
        block: whether its children are on separate lines.
    """

    key: str
    names: tuple[str, ...]
    listed: bool
    start: int
    first: int
    end: int
    indent: int
    block: bool


def added(theirs: str, ours: str, file: str) -> str:
    """`theirs` with `ours` added, both YAML text: children of a common key after theirs, other keys at the end.

    `file` is the name in errors. Line ends are those of `theirs`.

    Raises:
        CollisionError: both have the same child of a key, or a key with values that cannot be joined; or the keys of
            `theirs` are in braces or indented, so that no line can be added at the end.
        StageError: `theirs` is not YAML.
    """
    if not theirs.strip():
        return ours
    lines, new = _lines(theirs), ours.splitlines()
    present = {block.key: block for block in _blocks(theirs, file)}
    end = next((number for number, line in enumerate(lines) if line.rstrip() == "..."), len(lines))
    insertions: list[tuple[int, int, list[str]]] = []
    for block in _blocks(ours, file):
        existing = present.get(block.key)
        if existing is None:
            insertions.append((end, 1 + len(insertions), ["", *new[block.start : block.end]]))
            continue
        if twice := set(existing.names) & set(block.names):
            raise CollisionError(f"{file} has {block.key}.{sorted(twice)[0]} already")
        joins = existing.listed == block.listed or (block.listed and block.key == "plots")
        if block.key not in JOINED or not (existing.block and block.block and joins):
            raise CollisionError(f"{file} has {block.key} already")
        children = [_shifted(line, existing.indent - block.indent) for line in new[block.first : block.end]]
        if block.listed and not existing.listed:  # plots may be a list of mappings or one mapping
            children = [re.sub(rf"^( {{{existing.indent}}})- ", r"\1", line) for line in children]
        insertions.append((existing.end, 0, children if existing.listed else ["", *children]))
    # From the last line to the first; at the same line, children before new keys.
    for at, _, text in sorted(insertions, key=lambda insertion: insertion[:2], reverse=True):
        lines[at:at] = [line + _line_end(theirs) for line in text]
    return "".join(lines)


def added_lines(theirs: str, ours: str, _file: str) -> str:
    """`theirs` with the lines of `ours` that it lacks, comments aside."""
    if not theirs.strip():
        return ours
    present = set(theirs.splitlines())
    missing = [line for line in ours.splitlines() if line and not line.startswith("#") and line not in present]
    return "".join([*_lines(theirs), *(line + _line_end(theirs) for line in missing)])


def three_way(current: str, base: str, new: str) -> str | None:
    """`current` with the changes from `base` to `new`, merged by git; None if they conflict."""
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder, name) for name in ("current", "base", "new")]
        for name, text in zip(names, (current, base, new), strict=True):
            name.write_bytes(text.encode())
        done = subprocess.run(["git", "merge-file", "-p", *names], capture_output=True, check=False)
    return done.stdout.decode() if done.returncode == 0 else None


def _lines(text: str) -> list[str]:
    """The lines with their ends; the last one has one, too."""
    lines = text.splitlines(keepends=True)
    return lines if text == "" or lines[-1].endswith("\n") else [*lines[:-1], lines[-1] + _line_end(text)]


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _blocks(text: str, file: str) -> Iterator[Block]:
    """The top-level keys of a YAML mapping, in order."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise StageError(f"{file} is not valid YAML: {' '.join(str(error).split())}. Fix it first.") from error
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise StageError(f"{file} is not a mapping of keys. Fix it first.")
    if root.flow_style or root.start_mark.column:
        raise CollisionError(f"{file} has its keys in braces, or indented")
    lines = text.splitlines()
    previous = 0
    for key, value in root.value:
        start = key.start_mark.line
        while start > previous and re.fullmatch(r"#.*", lines[start - 1]):
            start -= 1
        end = _last_line(value) + 1
        collection = isinstance(value, yaml.CollectionNode) and bool(value.value)
        yield Block(
            key=key.value,
            names=tuple(_names(value)),
            listed=isinstance(value, yaml.SequenceNode),
            start=start,
            first=key.start_mark.line + 1,
            end=end,
            indent=value.start_mark.column,
            block=collection and not value.flow_style,
        )
        previous = end


def _names(node: yaml.Node) -> Iterator[str]:
    """The keys of a mapping; of a list, its scalars and the first key of each mapping in it."""
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        key = child[0] if isinstance(child, tuple) else child
        if isinstance(key, yaml.MappingNode):
            key = key.value[0][0] if key.value else key
        if isinstance(key, yaml.ScalarNode):
            yield key.value


def _last_line(node: yaml.Node) -> int:
    """The last line of a node that has content: the end mark of a block collection is where the next node begins."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    line: int = node.end_mark.line
    return line - 1 if node.end_mark.column == 0 and line > node.start_mark.line else line


def _shifted(line: str, by: int) -> str:
    if by >= 0:
        return " " * by + line if line.strip() else line
    return line[min(-by, len(line) - len(line.lstrip())) :]
