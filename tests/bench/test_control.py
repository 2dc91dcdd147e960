from pathlib import Path

import pytest

from stages.bench import control, one_node
from stages.bench.interval import Interval
from stages.bench.latency import Settings
from stages.bench.lock import alone


def test_what_is_remembered_for_a_machine_is_not_measured_again(tmp_path: Path) -> None:
    memory = tmp_path / "cache" / "onnx-quantize-pipeline" / "control_this%2Fmachine_1.json"
    memory.parent.mkdir(parents=True)
    memory.write_text('{"ratio": 1.0, "low95": 0.99, "high95": 1.01}', encoding="utf-8")
    one = one_node.write(tmp_path)
    found = control.once(Path("no model"), one.feed, Settings(1, 0, 0), "this/machine", launched=lambda: None)
    assert found == Interval(1.0, 0.99, 1.01)


@pytest.mark.parametrize("content", ["", "[]", '{"ratio": "?"}'])
def test_a_memory_that_makes_no_sense_is_measured_anew(tmp_path: Path, content: str) -> None:
    memory = tmp_path / "cache" / "onnx-quantize-pipeline" / "control_machine_1.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(content, encoding="utf-8")
    assert control._recall(memory) is None


@pytest.mark.slow
def test_a_model_against_itself_has_the_speed_up_1(tmp_path: Path) -> None:
    launches: list[None] = []
    one = one_node.write(tmp_path)
    with alone(tmp_path / "lock") as lock:
        found = control.once(
            one.model, one.feed, Settings(1, 0, lock), "machine", launched=lambda: launches.append(None)
        )
    assert len(launches) == 8
    assert 0.5 < found.ratio < 2
