"""Two tests at a time (pytest-xdist). What a test times proves nothing, so none has to be alone."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# The same examples each time, however long they take: a test that fails, fails again. To look for others:
# make test PYTEST_ARGS=--hypothesis-profile=search
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache for all tests, and not the user's: a model's control is measured once."""
    base = tmp_path_factory.getbasetemp()
    shared: Path = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["XDG_CACHE_HOME"] = str(shared / "user_cache")


SHARING = ("tests/pipeline/", "tests/sweep/", "tests/report/test_workflows.py", "tests/report/test_page.py")
"""Tests that share what takes long to make: a clone in which the pipeline ran, a Ray cluster, a project, a browser."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first, so that none of them is left for one worker at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Tests that share go to one worker, before all others. (Marks of xdist 3.8 have no effect under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in SHARING if nodeid.startswith(folder)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    return _Scheduling(config, log)
