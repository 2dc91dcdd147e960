"""How the answers move with the batch, on models whose INT8 form takes one scale per batch."""

import numpy as np
import pytest

from tests.parity.conftest import Project, graph

MODEL = graph("(float[N,24] x) => (float[N,24] y) { y = Softmax<axis=-1>(x) }")
PER_TENSOR = graph(
    "(float[N,24] x) => (float[N,24] y) "
    "{ q, s, z = DynamicQuantizeLinear(x) d = DequantizeLinear(q, s, z) y = Softmax<axis=-1>(d) }"
)


@pytest.fixture
def outlying() -> np.ndarray:
    """Normal values, and a sample that is zero except for one large value: exact itself, it spoils its neighbours."""
    values = np.random.default_rng(1).normal(size=(256, 24)).astype(np.float32)
    values[5] = 0.0
    values[5, 13] = 500.0
    return values


def test_alone_it_passes_and_warns_of_the_other_batch(project: Project, outlying: np.ndarray) -> None:
    project.write(MODEL, PER_TENSOR, {"x": outlying})
    result = project.run()
    effect = result["batch_effect"]
    assert result["passed"] is True
    assert (effect["serving_max_abs"], effect["large_batch"]) == (0.0, 64)
    assert effect["max_abs"] == effect["large_max_abs"] > 0.04
    assert "this verdict only holds for batches of 1" in " ".join(result["notes"])
    project.params({"serving": {"batch_size": 64}})
    assert project.run()["passed"] is False


def test_in_the_serving_batch_it_says_that_the_neighbours_matter(project: Project, outlying: np.ndarray) -> None:
    project.write(MODEL, PER_TENSOR, {"x": outlying}, tree={"serving": {"batch_size": 64}})
    result = project.run()
    assert result["batch_effect"]["serving_max_abs"] > 0.04
    assert "the answer depends on the rest of the batch" in " ".join(result["notes"])


def test_a_model_that_does_not_depend_on_the_batch_moves_by_nothing(project: Project, outlying: np.ndarray) -> None:
    project.write(MODEL, MODEL, {"x": outlying}, tree={"serving": {"batch_size": 8}})
    effect = project.run()["batch_effect"]
    assert effect["large_max_abs"] < 1e-6
    assert effect["max_abs"] == max(effect["serving_max_abs"], effect["large_max_abs"])


def test_a_model_that_mixes_the_samples_of_a_batch_is_not_blamed_on_int8(
    project: Project, outlying: np.ndarray
) -> None:
    mixing = graph(
        "(float[N,24] x) => (float[N,24] y) { m = ReduceMean<axes=[0]>(x) d = Sub(x, m) y = Softmax<axis=-1>(d) }"
    )
    project.write(mixing, mixing, {"x": outlying})
    result = project.run()
    assert result["batch_effect"]["large_error_max_abs"] == 0
    (note,) = (note for note in result["notes"] if "batches of 64" in note)
    assert "in fp32 too: the model mixes the samples of a batch" in note
