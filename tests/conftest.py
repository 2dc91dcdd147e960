"""Two tests at a time (pytest-xdist). What a test times proves nothing, so none has to be alone."""

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the clone in which the pipeline ran go to one worker."""
    for item in items:
        if "ran" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ran"))
