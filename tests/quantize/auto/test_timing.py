"""Timing in turn, by a clock of its own."""

from collections.abc import Callable

import pytest

from stages.quantize.auto.timing import Call, faster, raced


class Clock:
    """A clock that only calls move on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = 0
        monkeypatch.setattr("time.perf_counter_ns", lambda: self.ns)
        monkeypatch.setattr("time.monotonic", lambda: self.ns / 1e9)

    def sessions(self, *us: float) -> Callable[[], Call]:
        """Opens one session after the other, whose calls take so many microseconds."""
        left = iter(us)

        def opened() -> Call:
            ns = round(next(left) * 1000)

            def call() -> None:
                self.ns += ns

            return call

        return opened


def test_what_sessions_of_one_file_differ_by_is_in_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    floats, same, twice = clock.sessions(100, 100, 100), clock.sessions(100, 102, 104), clock.sessions(50, 50, 50)
    rounds = raced([floats, same, twice], 0.1)
    first, second = faster(rounds, 1), faster(rounds, 2)
    assert (first.low, first.high) == pytest.approx((100 / 104, 1.0))
    assert first.ratio == pytest.approx(100 / 102)
    assert (second.low, second.ratio, second.high) == pytest.approx((2, 2, 2))
