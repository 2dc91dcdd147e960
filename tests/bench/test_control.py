from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from stages.bench import control
from stages.bench.inputs import IdentityModel, write_identity
from stages.common.timing.launches import LaunchSettings
from stages.common.timing.lock import alone
from stages.common.timing.summary import FEWEST_LAUNCHES, Interval

KNOWN = Interval(1.0, 0.99, 1.01)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the measurement by one that gives KNOWN, and record what was asked for: pairs of equal models."""

    class Timing:
        interval = KNOWN

    pairs: list[Any] = []

    def time_pair(models: Any, *_args: Any, **_options: Any) -> list[Timing]:
        pairs.append(models)
        return [Timing()]

    monkeypatch.setattr(control, "time_pair", time_pair)
    return pairs


def measure(
    one: IdentityModel, *, sha256: str = "a", threads: int = 1, machine_id: str = "machine/1", fits: bool = True
) -> Interval | None:
    return control.measured_once(
        Path(one.model),
        sha256,
        one.feed,
        LaunchSettings(threads, 0, 0),
        machine_id=machine_id,
        fits=lambda: fits,
        budget=15,
    )


def test_a_control_is_measured_once(tmp_path: Path, measured: list[Any]) -> None:
    one = write_identity(tmp_path)
    assert measure(one) == measure(one) == KNOWN
    assert measured == [(Path(one.model), Path(one.model))]


def test_without_time_for_it_only_a_cached_control_is_given(tmp_path: Path, measured: list[Any]) -> None:
    one = write_identity(tmp_path)
    assert measure(one, fits=False) is None
    assert measured == []
    measure(one)
    assert measure(one, fits=False) == KNOWN


@pytest.mark.parametrize("change", [{"sha256": "b"}, {"threads": 2}, {"machine_id": "machine/2"}])
def test_another_model_thread_count_or_machine_has_a_control_of_its_own(
    change: dict[str, Any], tmp_path: Path, measured: list[Any]
) -> None:
    one = write_identity(tmp_path)
    measure(one)
    measure(one, **change)
    assert len(measured) == 2


def test_another_feed_has_a_control_of_its_own(tmp_path: Path, measured: list[Any]) -> None:
    one = write_identity(tmp_path)
    measure(one)
    Path(one.feed.path).write_bytes(b"another batch")
    measure(one)
    assert len(measured) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"ratio": "?"}'])
def test_a_cache_that_makes_no_sense_is_measured_anew(tmp_path: Path, content: str) -> None:
    cached = tmp_path / "control.json"
    cached.write_text(content, encoding="utf-8")
    assert control._read(cached) is None


@pytest.mark.usefixtures("short")
def test_a_model_is_timed_against_itself(tmp_path: Path) -> None:
    launches: list[float] = []
    one = write_identity(tmp_path)
    with alone(tmp_path / "lock") as lock:
        interval = control.measured_once(
            Path(one.model),
            "a",
            one.feed,
            LaunchSettings(1, 0, lock),
            machine_id="machine",
            fits=lambda: True,
            budget=0.1,
            launched=launches.append,
        )
    assert interval is not None
    assert len(launches) == FEWEST_LAUNCHES
    assert 0 < interval.low <= interval.ratio <= interval.high


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    assert control._cache_file("key").parent.name == "onnx-quantize-pipeline"
