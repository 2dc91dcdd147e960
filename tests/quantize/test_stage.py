"""The whole stage: what it writes, what it prints, and that it leaves no partial files."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from stages.common.base import paths
from stages.common.base.errors import MissingInputError, StageError
from stages.common.graph.weights import WeightedNode
from stages.common.model import model_file
from stages.quantize.check import Finding
from stages.quantize.outcome import NodeOutcome
from stages.quantize.trial import TRIALS, most_that_passes
from tests.onnx_models import publish, stored
from tests.quantize.running import Bench, graph, normal, run

ROOT = Path(__file__).resolve().parents[2]


def _model(*widths: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x" if at == 0 else f"h{at - 1}", f"W{at}"], [f"h{at}"], f"layer{at}")
        for at in range(len(widths) - 1)
    ]
    weights = {f"W{at}": normal(*widths[at : at + 2], seed=at) for at in range(len(widths) - 1)}
    return graph(nodes, {"x": ("n", widths[0])}, {f"h{len(widths) - 2}": ("n", widths[-1])}, weights)


def test_metrics_nodes_and_words(bench: Bench) -> None:
    bench.give(_model(256, 256, 256), {"x": normal(20, 256)})
    outcome = bench.run(exclude_nodes=["layer1"])
    fp32, int8 = (path.stat().st_size / 1e6 for path in (paths.FP32_MODEL, paths.INT8_MODEL))
    assert outcome.metrics["status"] == "quantized"
    assert outcome.metrics["size"] == {
        "fp32_mb": pytest.approx(fp32, rel=1e-3),
        "int8_mb": pytest.approx(int8, rel=1e-3),
        "times_smaller": pytest.approx(fp32 / int8, rel=1e-3),
    }
    assert outcome.metrics["nodes"] == {"quantizable": 2, "quantized": 1, "kept_float": 1}
    first, second = outcome.nodes["layer0"], outcome.nodes["layer1"]
    assert (first["quantized"], first["how"], first["reason"]) == ("true", "QInt8 per channel", "")
    assert (first["weight"], first["weight_shape"], first["weight_bytes"]) == ("W0", "256x256", "262144")
    assert 35 < float(first["weight_sqnr_db"]) < 45
    assert (second["quantized"], second["how"], second["weight_sqnr_db"]) == ("false", "", "")
    assert "1 of 2" in outcome.said and "1 kept: matches 'layer1' of quantize.exclude_nodes" in outcome.said
    assert paths.INT8_MODEL.with_name("model.int8.onnx.data").exists()
    assert sorted(path.name for path in paths.ARTIFACTS.iterdir()) == [
        "eval",
        "model.int8.onnx",
        "model.int8.onnx.data",
        "model.onnx",
    ]


def test_where_nothing_is_quantized_the_fp32_model_is_what_comes_out(bench: Bench) -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", 4)}, {"y": ("n", 4)}, {})
    bench.give(model, {"x": normal(8, 4)})
    outcome = bench.run()
    assert paths.INT8_MODEL.read_bytes() == paths.FP32_MODEL.read_bytes()
    assert outcome.metrics["status"] == "nothing_to_quantize"
    assert outcome.metrics["size"]["times_smaller"] == 1
    assert "Nothing to quantize: no operator has a constant float weight." in outcome.said


def test_a_missing_model_is_said_in_the_standing_words(bench: Bench) -> None:
    with pytest.raises(MissingInputError) as error:
        bench.run()
    assert str(error.value) == "Missing artifacts/model.onnx. Run export first."


def test_a_model_with_a_fixed_batch_is_fed_in_that_batch(bench: Bench) -> None:
    model = _model(8, 8)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    bench.give(model, {"x": normal(40, 8)})
    assert bench.run().quantized() == {"layer0"}
    bench.give(model, {"x": normal(8, 8)})
    with pytest.raises(StageError, match="The search split has 2 samples, but the model takes batches of 3"):
        bench.run()
    bench.give(model, {"x": normal(4, 8)})
    with pytest.raises(StageError, match="The search split has 1 sample, but the model takes batches of 3"):
        bench.run()


def test_a_single_sample_is_enough(bench: Bench) -> None:
    bench.give(_model(8, 8), {"x": normal(1, 8)})
    assert bench.run().quantized() == {"layer0"}


def test_a_node_that_cannot_bear_it_stays_float_and_the_rest_does_not(bench: Bench) -> None:
    # One input of the first layer dwarfs the others, and its weight is zero.
    first = normal(16, 16)
    first[0] = 0
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "second"], ["g"], "second"),
        helper.make_node("MatMul", ["g", "third"], ["y"], "third"),
    ]
    weights = {"first": first, "second": normal(16, 16, seed=1), "third": normal(16, 16, seed=2)}
    x = normal(40, 16)
    x[:, 0] = 1e6
    bench.give(graph(nodes, {"x": ("n", 16)}, {"y": ("n", 16)}, weights), {"x": x})
    outcome = bench.run()
    assert outcome.quantized() == {"second", "third"}
    assert "quantizing it breaks the model: output 'y' has a cosine similarity" in outcome.nodes["first"]["reason"]
    assert outcome.cosine({"x": x}) > 0.98


def _nodes(count: int) -> list[WeightedNode]:
    return [WeightedNode(f"n{at}", "MatMul", "", ()) for at in range(count)]


def _attempt(nodes: list[WeightedNode]) -> tuple[onnx.ModelProto, dict[str, NodeOutcome]]:
    names = [node.name for node in nodes]
    return onnx.ModelProto(doc_string=" ".join(names)), {name: NodeOutcome(quantized=True) for name in names}


def _kept_float(count: int, examine: Callable[[set[str]], Finding]) -> tuple[set[str], Mapping[str, NodeOutcome]]:
    """Names of the nodes that stay float, and the outcomes, found in at most `TRIALS` trials."""
    trials = []

    def counted(model: onnx.ModelProto) -> Finding:
        trials.append(model)
        return examine(set(model.doc_string.split()))

    model, outcomes = most_that_passes(_attempt, _nodes(count), counted)  # type: ignore[arg-type]
    kept = {name for name, outcome in outcomes.items() if not outcome.quantized}
    assert len(outcomes) == count
    assert len(trials) <= TRIALS
    assert model is not None
    assert set(model.doc_string.split()) == outcomes.keys() - kept
    return kept, outcomes


@pytest.mark.parametrize("bad", [set(), {"n0"}, {"n999"}, {"n3", "n500"}])
def test_bisection_finds_the_nodes_that_break_a_model(bad: set[str]) -> None:
    kept, _ = _kept_float(1000, lambda names: Finding("broken", None) if bad & names else Finding())
    assert kept == bad


@pytest.mark.parametrize(("count", "loud"), [(32, {"n1", "n2"}), (300, {"n7"}), (1000, {"n3"})])
def test_if_errors_add_up_those_with_the_largest_stay_float(count: int, loud: set[str]) -> None:
    """Together they exceed the limit, wherever the search begins: the last nodes are not to blame."""

    def examine(names: set[str]) -> Finding:
        cosine = 1 - 0.015 * len(loud & names) - 0.01 * len(names) / count
        return Finding("too far" if cosine < 0.98 else "", cosine)

    kept, outcomes = _kept_float(count, examine)
    assert kept & loud
    assert len(kept) <= max(2, count // 100)
    reason = "together the nodes break the model (too far), and this is one of those that move its answers most"
    assert all(outcomes[name].reason == reason for name in kept)


def test_bisection_ends_where_everything_breaks() -> None:
    def attempt(nodes: list[WeightedNode]) -> tuple[onnx.ModelProto, dict[str, NodeOutcome]]:
        return onnx.ModelProto(), {node.name: NodeOutcome(quantized=True) for node in nodes}

    model, decisions = most_that_passes(attempt, _nodes(1000), lambda _: Finding("broken", None))  # type: ignore[arg-type]
    assert model is None
    assert len(decisions) == 1000
    assert not any(outcome.quantized for outcome in decisions.values())
    assert all(outcome.reason for outcome in decisions.values())


def _digest() -> str:
    digest = hashlib.sha256()
    for path in (paths.INT8_MODEL, paths.NODES, paths.QUANTIZE):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _start(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.quantize"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_same_bytes_whatever_the_hash_seed(bench: Bench) -> None:
    model = _model(16, 16, 16, 16)
    for node in model.graph.node:
        node.name = ""
    bench.give(model, {"x": normal(20, 16)})
    digests = set()
    for seed in ("0", "1", "2"):
        process = _start(PYTHONHASHSEED=seed)
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert errors == ""
        assert "3 of 3 nodes quantized" in said
        digests.add(_digest())
    assert len(digests) == 1


def test_sigterm_leaves_the_old_result_and_nothing_partial(bench: Bench) -> None:
    bench.give(_model(16, 16), {"x": normal(20, 16)})
    bench.run()
    before = _digest()
    bench.give(_model(3000, 3000, 3000), {"x": normal(20, 3000)})
    process = _start()
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the stage was faster than the signal")
    # Killed by the signal itself if it arrived before the handler was set: nothing was written then, either.
    assert process.returncode in (143, -signal.SIGTERM), errors
    assert process.returncode != 143 or errors == "Terminated: nothing half-written is left behind.\n"
    assert _digest() == before
    assert not list(paths.ARTIFACTS.glob(".*"))


def test_peers_of_a_model_keep_their_interface(bench: Bench) -> None:
    model = _model(8, 8, 8)
    model.graph.output.extend([helper.make_tensor_value_info("h0", onnx.TensorProto.FLOAT, ("n", 8))])
    bench.give(model, {"x": normal(20, 8)})
    outcome = bench.run()
    for ask in ("get_inputs", "get_outputs"):
        fp32, int8 = ([(e.name, e.type, e.shape) for e in getattr(s, ask)()] for s in (outcome.fp32, outcome.int8))
        assert fp32 == int8
    assert list(run(outcome.int8, {"x": normal(2, 8)})) == ["h1", "h0"]


def test_a_large_model_is_written_beside_its_external_data(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.give(_model(64, 64, 64), {"x": normal(20, 64)})
    inline = bench.run()
    expected = run(inline.int8, {"x": normal(2, 64)})["h1"]
    monkeypatch.setattr(model_file, "LARGE_BYTES", 4000)
    publish(stored(paths.FP32_MODEL), paths.FP32_MODEL)
    assert paths.FP32_MODEL.stat().st_size < 4000
    outcome = bench.run()
    assert outcome.quantized() == {"layer0", "layer1"}
    assert paths.INT8_MODEL.stat().st_size < 4000
    assert outcome.metrics["size"]["int8_mb"] == pytest.approx(inline.metrics["size"]["int8_mb"], abs=0.01)
    np.testing.assert_array_equal(run(outcome.int8, {"x": normal(2, 64)})["h1"], expected)


@pytest.mark.parametrize("method", ["dynamic", "static", "weight_only"])
def test_nodes_csv_names_the_nodes_of_the_int8_file(bench: Bench, method: str) -> None:
    bench.give(_model(32, 64, 32), {"x": normal(64, 32)})
    outcome = bench.run(method=method, exclude_nodes=["layer1"] if method == "dynamic" else [])
    names = {node.name for node in outcome.int8_model.graph.node}
    for row in outcome.nodes.values():
        becomes = row["becomes"].split(";") if row["becomes"] else []
        assert set(becomes) <= names
        assert bool(becomes) == (row["quantized"] == "true")
        assert not becomes or row["node"] in becomes


def test_details_say_what_was_done(bench: Bench) -> None:
    bench.give(_model(32, 64, 32), {"x": normal(64, 32)})
    bench.run()
    details = json.loads(paths.QUANTIZE_DETAILS.read_text())
    assert details["method"] == "dynamic"
    assert {step["name"] for step in details["steps"]} <= {"nodes named", "constant weights computed"}
    assert details["in_attributes"] == details["notes"] == []
