"""What fits into bench.max_seconds. Times are made up: nothing here depends on the machine's speed."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.bench.budget import Rest, fitting_sizes
from stages.common.timing import launch, launches
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import LaunchSettings, ModelPair, time_pair
from stages.common.timing.summary import FEWEST_LAUNCHES, MIN_LAUNCHES, Launch, PairedTiming, summarize

MS = 1_000_000
PARTS = ("memory", "operators", "control")


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def perf_counter_ns(self) -> int:
        return round(self.seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "perf_counter_ns", clock.perf_counter_ns)
    return clock


def timing(fp32_ms: float, int8_ms: float, launches: int = FEWEST_LAUNCHES) -> PairedTiming:
    calls = np.full(1, fp32_ms * MS), np.full(1, int8_ms * MS)
    return summarize([Launch([calls], 1.0)] * launches, samples=1, target=0)


@pytest.mark.parametrize(
    ("call_ms", "calls"),
    [(0.01, 6001 + 10), (50, 3 + 10), (200, 2 + 1), (700, 1 + 1), (10_000, 1 + 1)],
    ids="{}".format,
)
def test_a_slow_model_makes_few_calls_in_a_launch(
    call_ms: float, calls: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    class Session:
        def get_outputs(self) -> list[Any]:
            return []

        def run(self, *_: Any) -> None:
            nonlocal made
            made += 1
            clock.seconds += call_ms / 1e3

    monkeypatch.setattr(launch, "run", lambda session, _feed, name: session.run(name))
    session: Any = Session()
    launch._time_pair([session, session], ["a", "b"], {}, seconds=0.0, turn=0)
    if call_ms >= 1:
        assert made == 2 * calls == 2 * launch.fewest_calls(call_ms * MS)
    else:
        assert made >= 2 * calls


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, MIN_LAUNCHES), (2.0, 7), (3.0, 5), (30.0, FEWEST_LAUNCHES)],
)
def test_the_budget_holds_but_for_the_fewest_launches(
    seconds: float, expected: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_launch(*_: Any) -> list[Launch]:
        clock.seconds += seconds
        return [Launch([(np.full(4, 2.0 * MS), np.full(4, 1.0 * MS))], 1.0)]

    left: list[float] = []
    monkeypatch.setattr(launches, "_launch", one_launch)
    settings, feed = LaunchSettings(1, 0, 0), StoredFeed("", (), 1)
    (timed,) = time_pair(ModelPair(Path(), Path()), [feed], settings, budget=15, target=0.02, launched=left.append)
    assert timed.launches == len(left) == expected
    assert timed.stopped_by == ("target" if expected == MIN_LAUNCHES else "budget")
    assert left == sorted(left, reverse=True)
    assert left[0] == pytest.approx(max(15 - seconds, 2 * seconds))


def rest(serving: PairedTiming, spent: float, seconds: float, wanted: tuple[int, ...] = ()) -> Rest:
    return Rest(serving, spent, seconds, fitting_sizes(wanted, serving, spent, seconds))


def without_control(rest: Rest, clock: Clock, *, memory: float, operators: float) -> None:
    """Memory and operators fit and take these seconds; then the control does not."""
    for part, seconds in (("memory", memory), ("operators", operators)):
        assert rest.fits(part)
        clock.seconds += seconds
    assert not rest.fits("control")


def test_what_does_not_fit_is_left_out_and_the_sentence_says_what_would_be_enough(clock: Clock) -> None:
    slow = rest(timing(10_000, 4_000), spent=90.0, seconds=15)  # a launch takes 30 s
    assert [part for part in PARTS if slow.fits(part)] == []
    sentence = slow.shortage()
    assert "bench.max_seconds 15 is too short for this model: the 3 launches" in sentence
    assert (
        "took 90 s and there was no time for memory, operators, control, as a call at batch 1 takes 10 s." in sentence
    )
    assert sentence.endswith(" Set it to 250.")
    enough = rest(timing(10_000, 4_000), spent=90.0, seconds=250)
    for part in PARTS:
        assert enough.fits(part)
        clock.seconds += enough.least(part)
    assert enough.shortage() == ""


def test_a_part_fits_if_the_parts_before_left_time_for_it(clock: Clock) -> None:
    left = rest(timing(700, 300), spent=10.5, seconds=15)  # a launch takes 3.5 s
    without_control(left, clock, memory=7, operators=3.5)
    assert "there was no time for control, as a call at batch 1 takes 700 ms. Set it to 30." in left.shortage()


def test_a_model_that_is_slow_to_load_is_not_called_slow(clock: Clock) -> None:
    loads = rest(timing(1, 0.5), spent=12.0, seconds=15)  # a launch takes 4 s
    without_control(loads, clock, memory=8, operators=4)
    assert (
        "too short for this model: there was no time for control, as a launch, which starts a process and loads both "
        "models, takes 4 s, of which the calls need 0.0"
    ) in loads.shortage()


def test_a_machine_that_was_busy_is_not_blamed_on_the_model(clock: Clock) -> None:
    busy = rest(timing(1, 1), spent=3.0, seconds=15)  # a launch takes 1 s
    without_control(busy, clock, memory=13, operators=1)
    assert busy.shortage() == (
        "With bench.max_seconds 15 there was no time for control: what came before took 14 s, more than the launches "
        "of the speed-up led to expect. Run bench again on a quieter machine, or set it to 20."
    )


def test_batch_sizes_are_left_out_and_one_value_is_enough_for_all(clock: Clock) -> None:
    quick = timing(1, 0.5, MIN_LAUNCHES)
    assert fitting_sizes([8, 32], quick, spent=6.0, seconds=15).left_out == {}
    slow = timing(200, 80, MIN_LAUNCHES)
    few = rest(slow, spent=12.0, seconds=20, wanted=(8, 64, 128))
    assert few.sizes.fitting == [8]
    assert few.sizes.left_out == {
        64: "with it the launches could take 125 s, more than bench.max_seconds",
        128: "with it the launches could take 233 s, more than bench.max_seconds",
    }
    assert few.shortage() == (
        "bench.max_seconds 20 is too short for this model: there was no time for batch 64, batch 128, as a call at "
        "batch 128 could take 25.6 s. Set it to 380."
    )
    enough = rest(slow, spent=12.0, seconds=380, wanted=(8, 64, 128))
    assert enough.sizes.left_out == {}
    assert enough.shortage() == ""


def test_a_small_model_leaves_the_budget_alone() -> None:
    assert rest(timing(1, 0.5, MIN_LAUNCHES), spent=16.0, seconds=15).shortage() == ""
