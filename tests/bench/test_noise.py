from dataclasses import replace

import pytest

from stages.bench import noise
from stages.bench.noise import Counters, Noise

QUIET = Noise(
    quiet_share=1.0,
    cpu_share=1.0,
    others_share=0.01,
    stolen_share=0.0,
    waiting_share=0.0,
    throttled_s=0.0,
    load=0.1,
)


def test_a_quiet_machine_has_nothing_to_say() -> None:
    assert QUIET.finding() == ""


def test_what_the_system_does_not_count_is_not_noise() -> None:
    unknown = replace(QUIET, cpu_share=None, stolen_share=None, waiting_share=None, throttled_s=None)
    assert unknown.finding() == ""


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("quiet_share", 0.6, "40% of the rounds were disturbed"),
        ("cpu_share", 0.5, "had a CPU for 50% of the time"),
        ("others_share", 0.4, "other processes took 40%"),
        ("stolen_share", 0.05, "the hypervisor took 5%"),
        ("waiting_share", 0.3, "tasks waited for a CPU 30%"),
        ("throttled_s", 1.25, "the CPU quota stopped bench for 1.2 s"),
    ],
)
def test_each_disturbance_is_named(key: str, value: float, words: str) -> None:
    assert words in replace(QUIET, **{key: value}).finding()


def test_shares_are_of_the_time_between_the_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    before: Counters = {"clock": 10, "own": 1, "busy": 100, "stolen": 5, "waited": 2, "throttled": 0, "load": 0.5}
    after: Counters = {"clock": 20, "own": 9, "busy": 114, "stolen": 6, "waited": 3, "throttled": 0.5, "load": 2.0}
    measured = noise.between(before, after, quiet_share=0.9, cpu_share=None)
    assert measured.others_share == pytest.approx((14 - 8) / 20)
    assert measured.stolen_share == pytest.approx(1 / 20)
    assert measured.waiting_share == pytest.approx(1 / 10)
    assert measured.throttled_s == pytest.approx(0.5)
    assert measured.load == 0.5


def test_this_machine_can_be_read() -> None:
    before = noise.snapshot()
    measured = noise.between(before, noise.snapshot(), quiet_share=1.0, cpu_share=1.0)
    for share in (measured.others_share, measured.stolen_share, measured.waiting_share, measured.throttled_s):
        assert share is None or share >= 0
