import numpy as np
import pytest

from stages.bench.comparison import FEWEST_QUIET, MIN_LAUNCHES, Launch, summed_up


def launch(fp32_us: float, int8_us: float, rounds: int = 6, calls: int = 50, seed: int = 0) -> Launch:
    random = np.random.default_rng(seed)
    times = [
        (random.normal(fp32_us, 0.5, calls) * 1e3, random.normal(int8_us, 0.3, calls) * 1e3) for _ in range(rounds)
    ]
    return Launch(times, 1.0)


def test_the_speed_up_is_that_of_the_quiet_launches() -> None:
    quiet = [launch(70, 35, seed=number) for number in range(10)]
    disturbed = [launch(95, 60, seed=100 + number) for number in range(10)]
    found = summed_up([*quiet, *disturbed], samples=1, target=0.02)
    assert found.interval.ratio == pytest.approx(2.0, rel=0.005)
    assert found.quiet_share == pytest.approx(0.5)
    assert not found.all_rounds
    assert (found.launches, found.stopped_by) == (20, "target")
    assert found.fp32.p50_ms == pytest.approx(0.070, rel=0.01)
    assert np.median(found.fp32.all_ns) > 71_000


def test_a_launch_that_was_quiet_for_a_while_counts_with_those_rounds() -> None:
    mixed = [Launch(launch(70, 35, 1, seed=number).rounds + launch(95, 60, 5).rounds, 1.0) for number in range(8)]
    found = summed_up(mixed, samples=1, target=0.05)
    assert found.interval.ratio == pytest.approx(2.0, rel=0.01)
    assert found.stopped_by == "target"


def test_with_too_few_quiet_launches_all_rounds_count() -> None:
    quiet = [launch(70, 35, seed=number) for number in range(FEWEST_QUIET - 1)]
    disturbed = [launch(95, 60, seed=100 + number) for number in range(20)]
    found = summed_up([*quiet, *disturbed], samples=1, target=0.5)
    assert found.all_rounds
    assert found.stopped_by == "budget"
    assert len(found.fp32.counted_ns) == len(found.fp32.all_ns)


def test_the_target_takes_as_many_quiet_launches_as_launches() -> None:
    quiet = [launch(70, 35, seed=number) for number in range(MIN_LAUNCHES - 1)]
    found = summed_up([*quiet, launch(95, 60)], samples=1, target=0.5)
    assert not found.all_rounds
    assert found.stopped_by == "budget"
    assert summed_up([*quiet, launch(70, 35)], samples=1, target=0.5).stopped_by == "target"


def test_disturbance_leaves_the_interval_of_a_model_against_itself_covering_1() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        launches = []
        for _ in range(8):
            layout = random.normal(0, 0.01, 2)
            rounds = []
            for _ in range(10):
                slow = 1.35 if random.random() < 0.4 else 1.0
                fp32, int8 = (70e3 * np.exp(each) * slow * random.normal(1, 0.01, 20) for each in layout)
                rounds.append((fp32, int8))
            launches.append(Launch(rounds, 1.0))
        covered += summed_up(launches, samples=1, target=0).interval.covers(1)
    assert covered >= 181  # 190 expected, three standard errors off


def test_one_model_has_the_speed_up_1_and_the_calls_of_both() -> None:
    found = summed_up([launch(70, 69, seed=number) for number in range(8)], samples=1, target=0.02)
    itself = found.of_one_model()
    assert (itself.interval.ratio, itself.interval.low, itself.interval.high) == (1, 1, 1)
    assert itself.fp32.p50_ms == itself.int8.p50_ms
    assert len(itself.fp32.all_ns) == len(found.fp32.all_ns) + len(found.int8.all_ns)
