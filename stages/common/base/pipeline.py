"""The stages of this pipeline in DVC: which entry of which dvc.yaml runs a module here.

A repository that adopted the pipeline may have its dvc.yaml above the working directory (`wdir`), a prefix on the names
of the stages, and one stage per model (`matrix`). A stage is identified by the module that it runs, and its folder.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.base import yaml12
from stages.common.base.paths import PARAMS

PACKAGE = __name__.partition(".")[0]
DVC_YAML = "dvc.yaml"
_MODULE = re.compile(rf"\bpython[\d.]* -m {PACKAGE}\.(\w+)")


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml that runs one of our modules.

    Attributes:
        room: the module: host, export, ...
        name: as in dvc.lock, the matrix entry included.
        file: the dvc.yaml that declares it, relative to the working directory.
        folder: its `wdir`, absolute; its dependencies are relative to it.
        frozen: DVC neither runs it nor compares its dependencies with dvc.lock.
    """

    room: str
    name: str
    file: Path
    folder: Path
    deps: tuple[str, ...]
    frozen: bool

    @property
    def address(self) -> str:
        """The stage as an argument of a DVC command in the working directory."""
        return self.name if self.file == Path(DVC_YAML) else f"{self.file.as_posix()}:{self.name}"

    @property
    def lock(self) -> Path:
        """The dvc.lock with its entry, relative to the working directory."""
        return self.file.with_name("dvc.lock")


def stages_of(file: Path) -> list[Stage]:
    """The stages of a dvc.yaml that run our modules; none if the file is missing or not valid."""
    try:
        tree = yaml12.load(file.read_text(encoding="utf-8")) if file.exists() else None
    except (yaml12.YamlError, UnicodeDecodeError):
        return []
    declared = tree.get("stages") if isinstance(tree, Mapping) else None
    if not isinstance(declared, Mapping):
        return []
    return [stage for name, entry in declared.items() for stage in _stages(file, str(name), entry)]


def here() -> dict[str, Stage]:
    """The stages that run in the working directory, by module, from the nearest dvc.yaml that has any."""
    return {stage.room: stage for stage in _nearest(lambda folder: folder == Path.cwd())}


def below() -> list[Stage]:
    """The stages that run in the working directory or below it, from the nearest dvc.yaml that has any."""
    return _nearest(lambda folder: folder.is_relative_to(Path.cwd()))


def _nearest(wanted: Callable[[Path], bool]) -> list[Stage]:
    """The stages in wanted folders, from the nearest dvc.yaml here or above that has any."""
    folder = Path.cwd()
    for above in (folder, *folder.parents):
        file = Path(os.path.relpath(above / DVC_YAML, folder))
        if stages := [stage for stage in stages_of(file) if wanted(stage.folder)]:
            return stages
        if (above / ".dvc").is_dir():
            break
    return []


def address(room: str) -> str:
    """The stage that runs a module here, as an argument of a DVC command."""
    stage = here().get(room)
    return stage.address if stage else room


def lock() -> Path:
    """The dvc.lock with the stages that run here."""
    return next((stage.lock for stage in here().values()), Path("dvc.lock"))


def scope() -> tuple[str, str]:
    """The prefix of a key in `dvc exp run -S`, and the target; both empty if params.yaml is beside dvc.yaml.

    For a command in the folder of dvc.yaml: `dvc exp run -S int8/a/params.yaml:quantize.method=static int8_gate@a`.
    """
    gate = here().get("gate")
    if gate is None or gate.file == Path(DVC_YAML):
        return "", ""
    folder = gate.folder.relative_to(gate.file.parent.resolve())
    return f"{(folder / PARAMS).as_posix()}:", gate.name


def _stages(file: Path, name: str, entry: Any) -> Iterator[Stage]:
    match = _MODULE.search(str(entry.get("cmd", ""))) if isinstance(entry, Mapping) else None
    if match is None:
        return
    matrix = {str(key): list(map(str, values)) for key, values in (entry.get("matrix") or {}).items()}
    for values in itertools.product(*matrix.values()):
        item = dict(zip(matrix, values, strict=True))
        folder = (file.parent / _filled(str(entry.get("wdir", ".")), item)).resolve()
        deps = tuple(_filled(str(dependency), item) for dependency in entry.get("deps") or ())
        named = f"{name}@{'-'.join(values)}" if values else name
        yield Stage(match[1], named, file, folder, deps, bool(entry.get("frozen")))


def _filled(text: str, item: Mapping[str, str]) -> str:
    return re.sub(r"\$\{item\.(\w+)\}", lambda match: item.get(match[1], match[0]), text)
