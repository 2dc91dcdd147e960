"""ONNX Runtime sessions: the same options everywhere, results as named arrays, and errors in one line."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from stages.common.base import paths
from stages.common.base.errors import StageError

if TYPE_CHECKING:
    import onnx_ir as ir

Feed = Mapping[str, np.ndarray]

_FATAL_ONLY = 4

_PLACE = re.compile(r"\S+\.(?:cc|h|cpp):\d+ [^()]*?\w::[~\w<>]+\(")
_QUALIFIERS = re.compile(r"^(?:::<lambda\([^)]*\)>)?(?: const)?(?: \[with [^\]]*\])?")

_MISSING_KERNEL = re.compile(r"implementation for (\w+)\((\d+)\)")

_LOCALE = re.compile(r"Failed to construct locale with name:\s*([\w@-]+)\.([\w-]+).*")

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

FIRST_OPSET = 7
"""The oldest opset that ONNX Runtime implements."""

# Part of a message of ONNX Runtime -> what to do about it.
_REMEDIES = {
    "is not a registered function/op": "Export it with standard operators: custom ones are not loaded here.",
    "Could not find an implementation": "Export it with types that have CPU kernels, such as float32.",
    "two nodes with same node name": "Give each node a unique name, or none.",
    "under development": "Export it with an older opset.",
}


def session_options(threads: int) -> ort.SessionOptions:
    """Options for a CPU session with `threads` intra-op threads that logs fatal errors only.

    With two threads or more, spinning stops between runs: the spinning pool of one model slows whatever runs next.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    if threads > 1:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(
    model: "Path | bytes | ir.Model", threads: int = 1, *, name: str = "", options: ort.SessionOptions | None = None
) -> ort.InferenceSession:
    """Load a model on the CPU: a path, a serialized ModelProto, or a model in memory of any size.

    ONNX Runtime refuses external data that is a symbolic link out of the model's folder, as DVC's cache may make it: it
    gets the file behind the link. Weights of a large model that are in no file are passed in memory. `name` (the path
    by default) stands for the model in errors; `options` replace `session_options(threads)`.

    Raises:
        StageError: ONNX Runtime refuses the model; the message includes its own.
    """
    called = name or (model.as_posix() if isinstance(model, Path) else "the model")
    options = options or session_options(threads)
    try:
        return _loaded(model, called, options)
    except StageError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        message = ort_message(error)
        raise StageError(
            f"ONNX Runtime {ort.__version__} cannot load {called}: {message}. {_remedy(message)}"
        ) from error


def _loaded(model: "Path | bytes | ir.Model", called: str, options: ort.SessionOptions) -> ort.InferenceSession:
    """Graph libraries are imported only if needed: processes that measure load files alone."""
    source: str | bytes
    weights: list[np.ndarray] = []  # must live until the session is made: ONNX Runtime copies them only then
    if isinstance(model, Path) and not paths.external_data(model).is_symlink():
        source = str(model)
    elif isinstance(model, bytes):
        source = model
    else:
        from stages.common.model import model_file

        graph = model_file.read(model, called) if isinstance(model, Path) else model
        source = _serialized(graph, options, weights)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _serialized(model: "ir.Model", options: ort.SessionOptions, weights: list[np.ndarray]) -> bytes:
    """The graph for ONNX Runtime; `weights` receives those of a large model that are in no file."""
    from stages.common.model import ir_conversion, model_file

    def place(tensor: "ir.TensorProtocol") -> tuple[str, int]:
        weights.append(ir_conversion.raw_bytes(tensor))
        return f"#{len(weights) - 1}", 0

    if model_file.weight_bytes(model) <= model_file.LARGE_BYTES:
        proto = ir_conversion.to_proto(model)
    elif folder := model_file.folder_of_weights(model):
        # ONNX Runtime releases each weight that it has packed; of weights passed in memory it keeps both.
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
        proto = ir_conversion.to_proto(model, model_file.place_in_folder)
    else:
        proto = ir_conversion.to_proto(model, place)
        names = [f"#{number}" for number in range(len(weights))]
        options.add_external_initializers_from_files_in_memory(names, weights, [array.nbytes for array in weights])
    serialized: bytes = proto.SerializeToString()
    return serialized


def run(session: ort.InferenceSession, feed: Feed, outputs: Sequence[str] | None = None, *, name: str) -> list[Any]:
    """Run `session` once.

    Raises:
        StageError: the run fails; the message names the model and includes ONNX Runtime's.
    """
    try:
        return list(session.run(outputs, dict(feed)))
    except Exception as error:  # see open_session
        raise StageError(f"{name} does not run on the evaluation data: {ort_message(error)}.") from error


def answers(session: ort.InferenceSession, feed: Feed, *, name: str) -> dict[str, np.ndarray]:
    """Run `session` once; all outputs by name, see `as_arrays`.

    Raises:
        StageError: see `run`.
    """
    return as_arrays([output.name for output in session.get_outputs()], run(session, feed, name=name))


def as_arrays(names: Sequence[str], values: Sequence[Any]) -> dict[str, np.ndarray]:
    """Outputs of one run by name, each as an array.

    A sequence with a map per sample (ZipMap) becomes scores, float64 [samples, keys], keys sorted; a key that a map
    lacks is NaN. A sequence of tensors is stacked, or flattened and concatenated if their shapes differ. An empty
    optional output becomes an empty array.
    """
    return {name: _as_array(value) for name, value in zip(names, values, strict=True)}


def per_sample(outputs: dict[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
    """The same outputs with `samples` along axis 0.

    An output of another length there (a state with the batch on another axis, a scalar for the whole batch) belongs to
    every sample of the batch and is repeated, as a view.
    """
    return {
        name: array if array.shape[:1] == (samples,) else np.broadcast_to(array, (samples, *array.shape))
        for name, array in outputs.items()
    }


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if value is None:
        return np.empty(0, dtype=np.float32)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        keys = sorted({key for mapping in value for key in mapping})
        return np.array([[mapping.get(key, np.nan) for key in keys] for mapping in value])
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        same = all(array.shape == value[0].shape for array in value)
        return np.stack(value) if same else np.concatenate([array.ravel() for array in value])
    return np.asarray(value)


def ort_message(error: Exception) -> str:
    """ONNX Runtime's message in one line, without codes, source locations, temporary names and the full stop."""
    text = " ".join(str(error).split())
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"(?:Load model from \S+ failed|Exception during initialization): ?", "", text)
    text = _LOCALE.sub(r"Failed to construct locale with name: \1.\2", _without_places(text))
    return text.strip().rstrip(".")[:400]


def _without_places(text: str) -> str:
    """Without `file.cc:123 Status ns::function(arguments) const`, which precedes the message of a failed check."""
    while place := _PLACE.search(text):
        end, depth = place.end(), 1
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        text = text[: place.start()] + _QUALIFIERS.sub("", text[end:], count=1).lstrip()
    return text


def _remedy(message: str) -> str:
    """What to do about a model that does not load."""
    from onnx import defs as schemas

    if locale := _LOCALE.search(message):
        language, encoding = locale.groups()
        name = f"{language}.{encoding}"
        return (
            f"Its StringNormalizer needs the locale {name}, here and where the model is served. Install it (Debian: "
            f"apt-get install locales && localedef -i {language} -f {encoding} {name}), or change the case of texts "
            "outside of the model (scikit-learn: lowercase=False)."
        )
    missing = _MISSING_KERNEL.search(message)
    if (  # the operator is older than the first opset that ONNX Runtime implements
        missing
        and schemas.has(missing[1], FIRST_OPSET)
        and (int(missing[2]) < schemas.get_schema(missing[1], FIRST_OPSET).since_version)
    ):
        return "Its opset is too old for ONNX Runtime. Convert it to opset 13 or later with onnx.version_converter."
    return next((remedy for sign, remedy in _REMEDIES.items() if sign in message), "Fix the model, or export it again.")
