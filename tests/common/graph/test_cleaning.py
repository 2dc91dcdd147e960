"""All passes together: undone if they change answers or fail, idempotent, and without effect on the source."""

import onnx_ir as ir
import pytest
from onnx_ir.passes import PassResult

from stages.common.graph import cleaning
from stages.common.graph.passes import name_nodes
from stages.common.model import ir_conversion
from tests.common.graph.models import dense
from tests.onnx_models import applied, ir_model, reference
from tests.quantize.running import normal

X = {"x": normal(4, 16)}


@pytest.mark.parametrize("apply", [apply for _, apply in cleaning.PASSES])
def test_a_pass_has_nothing_to_do_the_second_time(apply: cleaning.Pass) -> None:
    once, _ = applied(apply, dense(11))
    twice, modified = applied(apply, once)
    assert not modified
    assert twice == once


def test_all_passes_together() -> None:
    model = dense(11)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.metadata_props.add(key="author", value="someone")
    source = ir_model(model)
    before = ir_conversion.to_proto(source)
    cleaned, steps = cleaning.clean(source, reference(model, [X]))
    assert ir_conversion.to_proto(source) == before
    proto = ir_conversion.to_proto(cleaned)
    assert [step.name for step in steps if not step.undone] == ["constant weights computed", "nodes named"]
    assert [node.op_type for node in proto.graph.node] == ["MatMul", "Relu"]
    assert [tensor.name for tensor in proto.graph.initializer] == ["W"]
    assert proto.metadata_props[0].value == "someone"
    assert proto.graph.input == model.graph.input
    assert proto.graph.output == model.graph.output


def test_a_pass_that_changes_the_answers_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: ir.Model) -> PassResult:
        model.graph.initializers["T"].const_value = ir.tensor(normal(8, 16, seed=1), name="T")
        return PassResult(model, modified=True)

    monkeypatch.setattr(cleaning, "PASSES", (("spoilt", spoil), ("nodes named", name_nodes.apply)))
    model = dense()
    cleaned, steps = cleaning.clean(ir_model(model), reference(model, [X]))
    assert [step.name for step in steps if step.undone] == ["spoilt"]
    assert "output 'y' moved by" in steps[0].undone
    proto = ir_conversion.to_proto(cleaned)
    assert proto.graph.initializer == model.graph.initializer
    assert proto.graph.node[1].name == "MatMul_1"


def test_a_pass_that_fails_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: ir.Model) -> PassResult:
        raise RuntimeError("no\nsuch luck")

    monkeypatch.setattr(cleaning, "PASSES", (("failing", fail), ("nodes named", name_nodes.apply)))
    model = dense()
    _, steps = cleaning.clean(ir_model(model), reference(model, [X]))
    assert steps == [cleaning.Step("failing", "no such luck"), cleaning.Step("nodes named")]
