"""What is judged, and how it is served: both models, the samples and the batch."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stages.common import isa
from stages.common.base import files, paths
from stages.common.base.errors import StageError
from stages.common.base.params import Serving
from stages.common.data.evaldata import EvalData
from stages.common.data.feeding import check_fit, feed_batch, fixed_batch
from stages.common.judging.serve import Model, calls, logarithms
from stages.common.model.sessions import open_session


@dataclass(frozen=True)
class Setting:
    """Both models loaded, and the judged samples.

    Attributes:
        indices: indices of the judged samples, int64 [n], ascending; they are served in this order.
        batch: samples in one call, see `feeding.feed_batch`.
        free: whether another batch size is possible.
        sha256: hashes of fp32 and int8, external data included; if they are equal, both models share one session.
        isa: the instruction set of this machine.
    """

    fp32: Model
    int8: Model
    data: EvalData
    indices: np.ndarray
    batch: int
    free: bool
    serving: Serving
    sha256: tuple[str, str]
    isa: str

    @property
    def same_model(self) -> bool:
        """Whether both files are identical, as quantize leaves them if nothing could be quantized."""
        return self.sha256[0] == self.sha256[1]


def open_setting(serving: Serving) -> Setting:
    """Load both models and the evaluation data.

    Raises:
        StageError: a model is missing or does not load, or the evaluation data is missing or does not fit it.
    """
    fp32 = _opened(paths.FP32_MODEL, "export", serving.threads)
    sha256 = files.sha256(paths.FP32_MODEL), files.sha256(paths.INT8_MODEL) if paths.INT8_MODEL.exists() else ""
    if sha256[0] == sha256[1]:  # nothing was quantized
        int8 = replace(fp32, name=paths.INT8_MODEL.as_posix())
    else:
        int8 = _opened(paths.INT8_MODEL, "quantize", serving.threads)
    data = EvalData()
    check_fit(fp32.session, data.inputs, data.layout)
    check_pair(fp32, int8)
    indices = data.indices("judge")
    batch = feed_batch(fp32.session, data.layout, serving.batch_size)
    found = logarithms(fp32, calls(data, indices, batch))
    return Setting(
        replace(fp32, logarithms=found),
        replace(int8, logarithms=found),
        data,
        indices,
        batch,
        free=data.layout == "samples" and fixed_batch(fp32.session, data.layout) is None,
        serving=serving,
        sha256=sha256,
        isa=isa.here(),
    )


def _opened(path: Path, made_by: str, threads: int) -> Model:
    """Load a model. Only if that fails, parse the file to say what it is: a second copy takes much memory."""
    try:
        return Model(open_session(path, threads), path.as_posix())
    except StageError:
        from stages.common.model import model_file  # imports libraries that take 40 MB

        model_file.read(path, made_by)
        raise


def check_pair(fp32: Model, int8: Model) -> None:
    """Check that both have the same inputs and outputs, by name and type, in any order.

    Raises:
        StageError: one is missing, or of another type.
    """
    for kind in ("input", "output"):
        before, after = (_types(model, kind) for model in (fp32, int8))
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                raise StageError(
                    f"The {kind} '{name}' is {before.get(name, 'missing')} in {fp32.name} and "
                    f"{after.get(name, 'missing')} in {int8.name}, so they cannot be compared. Run quantize again."
                )


def _types(model: Model, kind: str) -> dict[str, str]:
    listed = model.session.get_inputs() if kind == "input" else model.session.get_outputs()
    return {entry.name: entry.type for entry in listed}
