"""Padding as a batch effect of sequences: a model that masks, in fp32 and with one scale that covers the padding."""

import numpy as np
import pytest

from stages.common.base.errors import ParamsError
from tests.parity.conftest import Project, graph

# A sum of the unmasked positions' values, through a table of 8 rows.
BODY = (
    "(int64[N,L] ids, int64[N,L] %(mask)s) => (float[N,L,2] hidden, float[N,2] pooled) "
    "<float[8,2] t = {9.0, -9.0, 0.1, 0.2, 0.3, -0.1, 0.2, 0.5, 0.4, 0.4, -0.3, 0.1, 0.6, 0.2, 0.1, 0.9}, "
    "int64[1] last = {-1}, int64[1] one = {1}> "
    "{ hidden0 = Gather(t, ids) %(step)s m = Cast<to=1>(%(mask)s) u = Unsqueeze(m, last) "
    "p = Mul(hidden, u) pooled = ReduceSum<keepdims=0>(p, one) }"
)
FLOAT = "hidden = Identity(hidden0)"
PER_TENSOR = "q, s, z = DynamicQuantizeLinear(hidden0) hidden = DequantizeLinear(q, s, z)"


def sequences(count: int = 40, length: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Ids from 1 to 7, and the attention mask; id 0, which stands for padding, has large values in the table."""
    random = np.random.default_rng(0)
    lengths = np.full(count, length)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return random.integers(1, 8, (count, length)) * mask, mask


def write(project: Project, mask: str = "attention_mask", **parity: object) -> None:
    ids, values = sequences()
    fp32, int8 = (graph(BODY % {"mask": mask, "step": step}) for step in (FLOAT, PER_TENSOR))
    project.write(fp32, int8, {"ids": ids, mask: values}, tree={"parity": {"max_nrmse": 10, **parity}})


def test_padding_moves_int8_and_not_fp32(project: Project) -> None:
    write(project)
    result = project.run()
    padding = result["batch_effect"]["padding"]
    assert (padding["mask"], padding["length"], padding["padded"]) == ("attention_mask", 6, 12)
    assert padding["fp32_max_abs"] == 0
    assert padding["int8_max_abs"] > 0.01
    assert "Padded from 6 to 12 positions (attention_mask), the same samples move by up to" in " ".join(result["notes"])


def test_what_padding_does_not_move_is_said_in_words(project: Project) -> None:
    ids, values = sequences()
    fp32 = graph(BODY % {"mask": "attention_mask", "step": FLOAT})
    project.write(fp32, fp32, {"ids": ids, "attention_mask": values})
    notes = " ".join(project.run()["notes"])
    assert "(attention_mask), the same samples do not move, in INT8 or in fp32." in notes


def test_it_counts_as_a_batch_effect(project: Project) -> None:
    write(project, max_batch_effect=0.01)
    result = project.run()
    [rule] = [rule for rule in result["rules"] if rule["name"] == "max_batch_effect"]
    assert (rule["outcome"], rule["value"]) == ("failed", result["batch_effect"]["padding"]["int8_max_abs"])
    assert rule["message"] == "the value is the movement when padded from 6 to 12 positions"


def test_a_mask_of_another_name_is_named_by_the_params(project: Project) -> None:
    write(project, mask="valid")
    assert project.run()["batch_effect"]["padding"]["reason"] == "no input is an attention mask"
    write(project, mask="valid", padding="valid")
    assert project.run()["batch_effect"]["padding"]["int8_max_abs"] > 0.01


def test_a_name_that_is_not_an_input_is_refused(project: Project) -> None:
    write(project, padding="mask")
    with pytest.raises(
        ParamsError, match=r"parity\.padding is mask, which is not an input of the model; it has ids, att"
    ):
        project.run()


def test_a_limit_on_the_batch_effect_does_not_apply_to_a_fixed_batch(project: Project) -> None:
    fixed = graph("(float[4,3] x) => (float[4,3] y) { y = Identity(x) }")
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    project.write(fixed, fixed, {"x": values}, tree={"parity": {"max_batch_effect": 1e-6}})
    result = project.run()
    [rule] = [rule for rule in result["rules"] if rule["name"] == "max_batch_effect"]
    assert (result["passed"], rule["outcome"]) == (True, "not applicable")
    assert rule["message"] == "the model is served in one batch size only"
