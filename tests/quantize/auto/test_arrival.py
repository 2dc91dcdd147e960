"""What arrives at the outputs of an error that one node makes."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from stages.common.base.params import OutputTolerance, Parity, Quantize
from stages.common.graph.weights import weighted_nodes
from stages.quantize.auto import probe
from stages.quantize.auto.arrival import Arrival
from stages.quantize.auto.distance import distance_strain
from stages.quantize.auto.probe import probe_all
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Known
from tests.onnx_models import ir_model
from tests.quantize import nets

FEEDS = [{"x": np.random.default_rng(seed).normal(size=(2, 4)).astype(np.float32)} for seed in range(3)]
ERROR = np.full((2, 4), 0.5, np.float32)


def damped(factor: float) -> ir.Model:
    """x + 1 -> a -> times factor -> y, and a second output that does not depend on a."""
    constants = {"one": 1.0, "factor": factor}
    nodes = [
        helper.make_node("Add", ["x", "one"], ["a"], name="a"),
        helper.make_node("Mul", ["a", "factor"], ["y"], name="y"),
        helper.make_node("Neg", ["x"], ["z"], name="z"),
    ]
    initializers = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "yz"]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_the_error_counts_as_it_arrives(factor: float) -> None:
    parity = Parity(abs_tol=None, mean_tol=None, max_nrmse=None, min_sqnr_db=20.0)
    arrival = Arrival(damped(factor), ["a", "y"], FEEDS, parity)
    signal = sum(float(np.square((feed["x"] + 1) * factor).sum()) for feed in FEEDS)
    noise = {node: 3 * 8 * (0.5 * times) ** 2 for node, times in (("a", factor), ("y", 1.0))}
    for node, power in noise.items():
        strain = arrival.strain(node, dict.fromkeys(range(3), ERROR))
        assert strain == pytest.approx(10 * np.sqrt(power / signal), rel=1e-4)


def test_the_rule_that_is_nearest_to_failing_counts() -> None:
    largest = Arrival(damped(1.0), ["a"], FEEDS, Parity(outputs={"y": OutputTolerance(abs_tol=0.25)}, max_nrmse=None))
    assert largest.strain("a", {0: ERROR}) == pytest.approx(2.0)


def test_logarithms_of_probabilities_count_as_probabilities() -> None:
    before = np.array([[0.5, 0.5 - 1e-9, 1e-9]])
    after = np.log([[0.5, 0.5 - 1e-6, 1e-6]])  # a tail that is a thousand times as likely, and no probability moved
    strain = distance_strain({"p": [np.log(before)]}, {"p": [after]}, Parity(abs_tol=0.01))
    assert strain == pytest.approx(1e-4, rel=0.01)


def test_the_model_itself_is_left_alone() -> None:
    model = damped(1.0)
    Arrival(model, ["a", "y"], FEEDS, Parity())
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert len(list(model.graph)) == 3


def test_a_slow_model_runs_once_for_all_choices_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strains of the other choices follow from the size of their errors, and come close to those measured."""
    model = ir_model(nets.mlp())
    feeds = nets.feeds(nets.mlp(), count=4, batch=16)
    assigned = [Assignment(node, Quantize()) for node in weighted_nodes(model)]
    parity = Parity(abs_tol=None, mean_tol=None, max_nrmse=None, min_sqnr_db=20.0)
    calibration = Known(lambda: iter(feeds), "minmax")
    runs: list[str] = []

    class Counted(Arrival):
        def strain(self, node: str, errors: Mapping[int, np.ndarray]) -> float | None:
            runs.append(node)
            return super().strain(node, errors)

    monkeypatch.setattr(probe, "Arrival", Counted)
    exact = probe_all(model, assigned, feeds, parity, calibration)
    assert len(runs) == sum(len(node.sensitivities) for node in exact.values())
    runs.clear()
    monkeypatch.setattr(probe, "ARRIVAL_SECONDS", 0.0)
    quick = probe_all(model, assigned, feeds, parity, calibration)
    assert len(runs) == len(assigned)
    for name, node in exact.items():
        for one, other in zip(node.sensitivities, quick[name].sensitivities, strict=True):
            assert one.strain is not None
            assert other.strain is not None
            assert 2 / 3 < other.strain / one.strain < 3 / 2
