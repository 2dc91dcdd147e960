from typing import Any

import pytest

from stages.bench.operators import Profile
from stages.bench.workers.profiler import cheapest_kernel_us, milliseconds


def call(start: int) -> dict[str, Any]:
    return {"name": "model_run", "ts": start, "dur": 100, "tid": 1, "args": {}}


def kernel(operator: str, start: int, duration: int, name: str = "node", thread: int = 1) -> dict[str, Any]:
    return {
        "name": f"{name}_kernel_time",
        "ts": start,
        "dur": duration,
        "tid": thread,
        "args": {"op_name": operator},
    }


def test_only_the_last_calls_count() -> None:
    events = [call(0), kernel("Conv", 1, 90), call(100), kernel("Conv", 101, 30), call(200), kernel("Conv", 201, 50)]
    assert milliseconds(events, calls=2, overhead_us=0) == {"Conv": pytest.approx(0.040)}


def test_a_kernel_that_runs_others_counts_only_itself() -> None:
    events = [
        call(0),
        kernel("If", 5, 40, "inner"),
        kernel("Conv", 41, 2, "c"),
        kernel("BeamSearch", 1, 60, "outer"),
        kernel("Conv", 5, 10, "a"),
        kernel("Conv", 20, 20, "b"),
        kernel("Relu", 70, 5),
    ]
    assert milliseconds(events, calls=1, overhead_us=0) == {
        "BeamSearch": pytest.approx(0.020),
        "Conv": pytest.approx(0.032),
        "Relu": pytest.approx(0.005),
    }


def test_kernels_of_other_threads_do_not_nest() -> None:
    events = [call(0), kernel("A", 1, 50), kernel("B", 2, 10, thread=2)]
    assert milliseconds(events, calls=1, overhead_us=0) == {"A": pytest.approx(0.050), "B": pytest.approx(0.010)}


def test_a_node_that_runs_twice_in_a_call_counts_twice() -> None:
    events = [call(0), kernel("Add", 1, 10), kernel("Add", 20, 10)]
    assert milliseconds(events, calls=1, overhead_us=0) == {"Add": pytest.approx(0.020)}


def test_an_interruption_does_not_count() -> None:
    events = []
    for number in range(8):
        events += [call(number * 10_000), kernel("Relu", number * 10_000 + 1, 5000 if number == 3 else 4)]
    assert milliseconds(events, calls=8, overhead_us=0) == {"Relu": pytest.approx(0.004)}


def test_the_time_of_the_profiler_is_taken_off_each_kernel() -> None:
    events = [call(0), kernel("Conv", 1, 50), kernel("Relu", 60, 2)]
    assert milliseconds(events, calls=1, overhead_us=3) == {"Conv": pytest.approx(0.047), "Relu": 0.0}


def test_the_cheapest_kernel_bounds_the_time_of_the_profiler() -> None:
    events = [
        call(0),
        kernel("Conv", 1, 9, "warm"),
        call(100),
        kernel("Conv", 101, 50, "a"),
        kernel("Relu", 160, 3, "b"),
    ]
    assert cheapest_kernel_us(events, calls=1) == 3
    assert cheapest_kernel_us([call(0)], calls=1) == 0


def test_a_slow_dynamic_conv_is_named() -> None:
    profile = Profile(fp32={"Conv": 0.12, "MatMul": 0.88}, int8={"ConvInteger": 8.1, "DynamicQuantizeMatMul": 1.9})
    assert profile.finding() == "ConvInteger takes 81% of the INT8 model's time; in fp32 Conv took 12%."


def test_conversions_that_eat_the_gain_are_named() -> None:
    profile = Profile(fp32={"Gemm": 1.0}, int8={"QGemm": 0.6, "QuantizeLinear": 0.3, "DequantizeLinear": 0.3})
    assert profile.finding().endswith("in fp32 Gemm took 100%; quantizing and dequantizing take 50%.")


def test_rows_put_the_most_time_first() -> None:
    rows = Profile(fp32={"Conv": 3.0, "Relu": 1.0}, int8={"ConvInteger": 2.0, "Relu": 2.0}).rows()
    assert [row[0] for row in rows] == ["Conv", "ConvInteger", "Relu"]
    assert rows[0] == ("Conv", 3.0, 0.0, 0.75, 0.0)


def test_a_model_without_kernels_has_nothing_to_say() -> None:
    assert Profile({}, {}).finding() == ""
