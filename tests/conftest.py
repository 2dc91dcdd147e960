"""Two tests at a time (pytest-xdist), except those that measure time: nothing runs beside them."""

import fcntl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of bench run alone; those that share the clone in which the pipeline ran go to one worker."""
    for item in items:
        if item.path.is_relative_to(HERE / "bench"):
            item.add_marker("alone")
        if "ran" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ran"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold the lock of all workers while a test runs: shared, or exclusively where it must be alone."""
    assert item.config.cache is not None
    folder = item.config.cache.mkdir("locks")
    with _held(folder, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH):
        return (yield)


@contextmanager
def _held(folder: Path, how: int) -> Iterator[None]:
    """A readers-writer lock between processes. Whoever waits at the door goes in next, so that nobody starves."""
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, how)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
