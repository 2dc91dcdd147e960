"""Reading files that are not models, and writing large models, on real files."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from stages.common.base import paths
from stages.common.base.errors import MissingInputError, StageError
from stages.common.model import ir_conversion, model_file, sessions
from tests.onnx_models import ir_model, opened, publish, stored
from tests.zoo import ZOO, needs_zoo


def linear(rows: int = 64, columns: int = 32, seed: int = 0) -> onnx.ModelProto:
    """y = x @ W + b, and a lookup in W."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, columns)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "W"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["y"]),
            helper.make_node("Gather", ["W", "rows"], ["z"]),
        ],
        "linear",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["M"]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", columns]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["M", columns]),
        ],
        [numpy_helper.from_array(weight, "W"), numpy_helper.from_array(weight[0].copy(), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(session: ort.InferenceSession, model: onnx.ModelProto) -> list[np.ndarray]:
    rows = next(tensor for tensor in model.graph.initializer if tensor.name == "W").dims[0]
    x = np.linspace(-1, 1, 2 * rows, dtype=np.float32).reshape(2, rows)
    return sessions.run(session, {"x": x, "rows": np.array([3, 0])}, name="the model")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit, so that small models are treated as large ones."""
    monkeypatch.setattr(model_file, "LARGE_BYTES", 1000)


def test_a_missing_model_names_the_stage_that_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match=r"^Missing artifacts/model\.onnx\. Run export first\.$"):
        model_file.read(Path("artifacts/model.onnx"), "export")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE HTML><html><body>404</body></html>", "web page"),
        (b"\x20\0\0\0ORTM" + bytes(64), r"\.ort"),
        (b"PK\x03\x04" + bytes(64), "zip archive"),
        (b"outs:\n- md5: 00\n  path: model.onnx\n", "dvc pull"),
        (b'\x10\0\0\0\0\0\0\0{"w":{}}' + bytes(64), "safetensors"),
        (b"the quick brown fox jumps over the lazy dog", "is not an ONNX model"),
        (bytes(4096), "is not an ONNX model"),
        (b"\x08\x08", "has no graph"),
        (b"\xff" * 64, "is not an ONNX model"),
    ],
)
def test_a_file_that_is_no_model_is_named_for_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(StageError, match=words):
        model_file.read(path, "export")


@given(share=st.floats(0.0, 0.99))
def test_a_model_cut_anywhere_is_refused_in_one_sentence(
    share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = linear().SerializeToString()
    path = tmp_path_factory.mktemp("cut") / "model.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(StageError) as caught:
        model_file.read(path, "export")
    assert "\n" not in str(caught.value)
    if share > 0.1:
        assert "is truncated" in str(caught.value)


@given(noise=st.binary(min_size=1, max_size=300))
def test_any_bytes_are_refused_in_one_sentence(noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("noise") / "model.onnx"
    path.write_bytes(noise)
    with pytest.raises(StageError):
        model_file.read(path, "export")


@pytest.mark.parametrize("name", ["model.json", "model.textproto", "model"])
def test_a_model_is_one_whatever_its_file_is_called(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(linear().SerializeToString())
    assert stored(path) == linear()
    path.write_text('{"irVersion": 8}')
    with pytest.raises(StageError, match="is not an ONNX model"):
        model_file.read(path, "export")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is a folder"):
        model_file.read(tmp_path, "export")


@pytest.mark.parametrize(("ir", "opset", "words"), [(99, 17, "IR version 99"), (8, 99, "opset 99")])
def test_versions_of_the_future_are_named(ir: int, opset: int, words: str, tmp_path: Path) -> None:
    model = linear()
    model.ir_version, model.opset_import[0].version = ir, opset
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(StageError, match=words):
        model_file.read(tmp_path / "model.onnx", "export")


def test_a_small_model_is_one_file_and_an_external_data_file_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    publish(linear(), path)
    assert paths.external_data(path).read_bytes() == model_file.NO_DATA
    assert model_file.size_mb(path) == path.stat().st_size / 1e6
    assert b"No external data" in paths.external_data(path).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


@pytest.mark.usefixtures("large")
def test_a_large_model_comes_back_whole_and_the_original_is_untouched(tmp_path: Path) -> None:
    model, path = linear(), tmp_path / "model.onnx"
    before = model.SerializeToString()
    publish(model, path)
    assert model.SerializeToString() == before
    assert paths.external_data(path).stat().st_size == 64 * 32 * 4
    assert model_file.size_mb(path) > 64 * 32 * 4 / 1e6
    assert_same_answers(path, model)


def assert_same_answers(path: Path, model: onnx.ModelProto) -> None:
    """The file at `path` holds the tensors of `model`, and answers as it does: read from the path, and in memory."""
    assert stored(path).graph.initializer == model.graph.initializer
    expected = answers(opened(model), model)
    for source in (path, model_file.read(path, "export")):
        for answer, value in zip(answers(sessions.open_session(source), model), expected, strict=True):
            np.testing.assert_array_equal(answer, value)


def test_the_weights_of_a_large_model_stay_on_disk_and_move_to_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (tmp_path / name / "model.onnx" for name in "abc")
    monkeypatch.setattr(model_file, "LARGE_BYTES", 1000)
    publish(linear(), first)
    read = model_file.read(first, "export")
    assert isinstance(read.graph.initializers["W"].const_value, ir.LazyTensor)
    with model_file.staged(read, second):
        pass
    assert second.read_bytes() == first.read_bytes()
    assert paths.external_data(second).read_bytes() == paths.external_data(first).read_bytes()
    monkeypatch.undo()
    with model_file.staged(read, third):
        pass
    assert paths.external_data(third).read_bytes() == model_file.NO_DATA
    assert stored(third) == linear()


def test_weights_begin_at_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "LARGE_BYTES", 1000)
    monkeypatch.setattr(ir_conversion, "INLINE_BYTES", 1)
    model = linear(7, 3)
    model.graph.initializer.extend([numpy_helper.from_array(np.ones(999, np.float32), f"c{n}") for n in range(3)])
    publish(model, tmp_path / "model.onnx")
    written = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    offsets = [int(entry.value) for tensor in written.graph.initializer for entry in tensor.external_data[1:2]]
    assert len(offsets) == 5
    assert all(offset % 4096 == 0 for offset in offsets)


@pytest.mark.usefixtures("large")
def test_three_writes_give_the_same_bytes_whatever_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    publish(linear(128), path)
    seen = set()
    for _ in range(3):
        publish(linear(), path)
        seen.add((path.read_bytes(), paths.external_data(path).read_bytes()))
    assert len(seen) == 1


@pytest.mark.usefixtures("large")
def test_a_staged_large_model_runs_and_a_failed_check_publishes_nothing(tmp_path: Path) -> None:
    path, model = tmp_path / "model.onnx", linear()
    with model_file.staged(ir_model(model), path) as temporary:
        assert_same_answers(temporary, model)
    held = path.read_bytes(), paths.external_data(path).read_bytes()
    with pytest.raises(StageError, match="no good"), model_file.staged(ir_model(linear(seed=1)), path):
        raise StageError("no good")
    assert held == (path.read_bytes(), paths.external_data(path).read_bytes())
    assert len(list(tmp_path.iterdir())) == 2


def into_cache(path: Path, cache: Path, link: Callable[[Path, Path], None]) -> None:
    """Move a model and its external data into folders of their own, as DVC's cache has them, and leave links behind."""
    for number, file in enumerate((path, paths.external_data(path))):
        kept = cache / str(number) / "content"
        kept.parent.mkdir(parents=True)
        shutil.move(file, kept)
        link(kept, file)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_of_a_dvc_cache_are_followed(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    path, cache, model = tmp_path / "work" / "model.onnx", tmp_path / "cache", linear()
    publish(model, path)
    into_cache(path, cache, link)
    assert_same_answers(path, model)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_small_linked_model_loads(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    path, cache, model = tmp_path / "work" / "model.onnx", tmp_path / "cache", linear()
    publish(model, path)
    into_cache(path, cache, link)
    assert_same_answers(path, model)


@pytest.mark.usefixtures("large")
def test_a_large_model_is_loaded_from_its_files_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "work" / "model.onnx", linear()
    publish(model, path)
    into_cache(path, tmp_path / "cache", os.symlink)
    unchanged, changed = (model_file.read(path, "export") for _ in range(2))
    weight = changed.graph.initializers["W"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * 2)
    expected = [output * 2 for output in answers(sessions.open_session(ir_model(model)), model)]
    np.testing.assert_allclose(answers(sessions.open_session(changed), model)[1], expected[1])
    monkeypatch.setattr(ir_conversion, "raw_bytes", None)  # fails if a weight is passed in memory
    opened_here = sessions.open_session(unchanged)
    np.testing.assert_allclose(answers(opened_here, model)[1] * 2, expected[1])


def foreign(folder: Path) -> Path:
    """A model as other tools write it: one file for each tensor, named by the tool."""
    path = folder / "theirs.onnx"
    onnx.save_model(
        linear(),
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
        convert_attribute=True,
    )
    return path


def test_external_files_of_any_name_are_read_through_links(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    os.link(tmp_path / "W", tmp_path / "a hard link")
    shutil.move(tmp_path / "b", tmp_path / "elsewhere")
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    assert stored(path) == linear()


def test_missing_external_data_are_named(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    (tmp_path / "W").unlink()
    with pytest.raises(StageError, match=r"theirs\.onnx keeps the weight W in 'W', but .*/W is missing"):
        model_file.read(path, "export")


def test_external_data_cut_short_are_named(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    (tmp_path / "W").write_bytes((tmp_path / "W").read_bytes()[:-1])
    with pytest.raises(StageError, match="it is truncated, or belongs to another model"):
        model_file.read(path, "export")


def test_external_data_that_are_an_lfs_pointer_are_named(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    (tmp_path / "W").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(StageError, match="Git LFS pointer"):
        model_file.read(path, "export")


@pytest.mark.parametrize("location", ["../W", "/etc/passwd", "", "a/../../W"])
def test_external_data_outside_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = foreign(folder)
    (tmp_path / "W").write_bytes(bytes(10_000))
    model = onnx.load(path, load_external_data=False)
    next(tensor for tensor in model.graph.initializer if tensor.name == "W").external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(StageError, match="outside its own folder"):
        model_file.read(path, "export")


def test_sizes_are_those_of_the_raw_bytes() -> None:
    for kind in (TensorProto.FLOAT, TensorProto.INT8, TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.BOOL):
        tensor = ir.tensor(helper.make_tensor("t", kind, [3, 5], np.zeros(15)))
        assert len(ir_conversion.raw_bytes(tensor)) == tensor.nbytes == 15 * tensor.dtype.itemsize
    assert (
        len(ir_conversion.raw_bytes(ir.tensor(helper.make_tensor("t", TensorProto.UINT4, [3, 5], np.zeros(15))))) == 8
    )


@pytest.mark.usefixtures("large")
def test_weights_of_subgraphs_move_with_the_model(tmp_path: Path) -> None:
    """The two bodies use one name for different weights; the files still load after they are moved."""

    def body(seed: int) -> onnx.GraphProto:
        weight = numpy_helper.from_array(np.random.default_rng(seed).normal(size=(64, 32)).astype(np.float32), "W")
        output = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 32])
        return helper.make_graph([helper.make_node("MatMul", ["x", "W"], ["z"])], "body", [], [output], [weight])

    choice = helper.make_node("If", ["flag"], ["y"], then_branch=body(0), else_branch=body(1))
    ends = [
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64]),
            helper.make_tensor_value_info("flag", 9, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
    ]
    model = helper.make_model(
        helper.make_graph([choice], "g", *ends), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    first, second, moved = (tmp_path / name / "model.onnx" for name in ("first", "second", "moved"))
    first.parent.mkdir()
    before = model.SerializeToString()
    onnx.save_model(model, first, save_as_external_data=True, location="theirs.bin", size_threshold=0)
    read = model_file.read(first, "export")
    with model_file.staged(read, second):
        pass
    shutil.rmtree(first.parent)
    second.parent.rename(moved.parent)
    assert str(tmp_path).encode() not in moved.read_bytes()
    for flag in (True, False):
        feed = {"x": np.ones((2, 64), np.float32), "flag": np.array(flag)}
        both = (sessions.open_session(before), sessions.open_session(moved))
        expected, actual = (sessions.run(session, feed, name="the model")[0] for session in both)
        np.testing.assert_array_equal(actual, expected)


@needs_zoo
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.onnx", "is empty"),
        ("future_ir_99.onnx", "IR version 99"),
        ("html_error_page.onnx", "web page"),
        ("lfs_pointer.onnx", "git lfs pull"),
        ("missing_external_data/model.onnx", r"conv_qdq_external_ini\.bin is missing"),
        ("truncated.onnx", "is truncated: it has 44209 bytes"),
    ],
)
def test_the_broken_files_of_the_zoo_are_named_for_what_they_are(name: str, words: str) -> None:
    assert ZOO is not None
    with pytest.raises(StageError, match=words):
        model_file.read(ZOO / "_broken" / name, "export")


@needs_zoo
def test_every_model_of_the_zoo_is_read() -> None:
    assert ZOO is not None
    models = sorted(ZOO.glob("*/model.onnx"))
    assert models
    for path in models:
        assert model_file.read(path, "export").graph.outputs
