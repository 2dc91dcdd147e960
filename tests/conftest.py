"""Tests run side by side (pytest-xdist): none depends on its speed, so none has to run alone."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Hypothesis tries the same examples each time, so a test that fails once fails again. To look for other examples:
# make test PYTEST_ARGS=--hypothesis-profile=search
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All tests share a cache, which is not the user's: the control of a model is measured once."""
    base = tmp_path_factory.getbasetemp()
    shared: Path = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["XDG_CACHE_HOME"] = str(shared / "user_cache")


SHARING = ("tests/pipeline/", "tests/sweep/", "tests/report/test_workflows.py", "tests/report/test_page.py")
"""Tests that share something slow to build: a clone in which the pipeline ran, a Ray cluster, a project, a browser."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run first, so that at the end no worker is left alone with one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Tests that share go to one worker, before all others. (Marks of xdist 3.8 have no effect in pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in SHARING if nodeid.startswith(folder)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    return _Scheduling(config, log)
