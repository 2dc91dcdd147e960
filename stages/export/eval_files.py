"""Evaluation data in the user's own files: an `.npz`, or a folder of `.npy` files, by input name.

In a folder, names may be percent-encoded as in `artifacts/eval/inputs`: `serving%2Fx%3A0.npy`.
"""

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import numpy as np

from stages.common.base.errors import StageError

LABELS = "labels"


@contextmanager
def opened(
    path: Path, input_names: Sequence[str], scratch: Path
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
    """Yield memory-mapped inputs by name, and the array called `labels`, unless an input has that name.

    Args:
        path: of the `.npz` or the folder.
        input_names: of the model.
        scratch: a folder for arrays that must be unpacked to be mapped.

    Raises:
        StageError: there is no such file or folder, or it holds no readable arrays.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch, prefix=".eval.", suffix=".tmp") as unpacked:
        files = _npy_files(path, Path(unpacked))
        arrays = {name: _mapped(file, name, path) for name, file in sorted(files.items())}
        labels = arrays.pop(LABELS, None) if LABELS not in input_names else None
        if not arrays:
            raise StageError(f"export.eval_data {path} holds no input arrays. Save one per model input.")
        yield arrays, labels


def _npy_files(path: Path, unpacked: Path) -> dict[str, Path]:
    if path.is_dir():
        return {unquote(file.stem): file for file in path.glob("*.npy")}
    if not path.exists():
        raise StageError(
            f"export.eval_data is {path}, which does not exist. Name an .npz file or a folder of .npy files."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if member.endswith(".npy")]
            files = {member.removesuffix(".npy"): unpacked / f"{i}.npy" for i, member in enumerate(members)}
            for member, file in zip(members, files.values(), strict=True):
                # Streamed to disk, so that an archive larger than memory can be mapped.
                with archive.open(member) as source, file.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise StageError(f"export.eval_data {path} is not an .npz file. Write it with numpy.savez.") from error
    return files


def _mapped(file: Path, name: str, path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r" if file.stat().st_size else None, allow_pickle=False)
    except ValueError as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise StageError(
                f"export.eval_data {path}: the array '{name}' holds Python objects. Save text with dtype str."
            ) from error
        raise StageError(
            f"export.eval_data {path}: '{name}' is not a numpy array ({error}). Save it with numpy."
        ) from error
    return array
