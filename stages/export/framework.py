"""What a framework offers export: which models are its own, and how they become ONNX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from stages.common.base.params import Export
from stages.export.drift import SourceAnswers


@dataclass(frozen=True)
class Converted:
    """A model as ONNX, and its evaluation inputs as the ONNX model takes them.

    Attributes:
        model: the fp32 ONNX model.
        inputs: arrays by input name.
        answers: what the source framework answers to the same samples; None where the source was ONNX already.
        notes: sentences on what was cast or left out.
    """

    model: ir.Model
    inputs: Mapping[str, np.ndarray]
    answers: SourceAnswers | None = None
    notes: tuple[str, ...] = ()


class Framework(Protocol):
    """What a module of this package offers."""

    NAME: str
    """What to call the framework."""

    def knows(self, model: Any) -> bool:
        """Whether `model` is one of this framework's."""

    def input_names(self, model: Any) -> Sequence[str]:
        """The names of the inputs that evaluation data must hold; empty where the model does not name them."""

    def convert(self, model: Any, inputs: Any, params: Export) -> Converted:
        """Convert the model and its evaluation inputs.

        Raises:
            StageError: the converter does not take this model, or the inputs are of a kind the model does not take.
        """
