"""Where the time goes: ONNX Runtime's profile of both models."""

from pathlib import Path

from stages.bench import child
from stages.bench.feeds import StoredFeed
from stages.bench.latency import Pair, Settings
from stages.bench.one_node import OneNode
from stages.bench.operators import Profile


def profile(models: Pair, feed: StoredFeed, one_node: OneNode, settings: Settings, folder: Path) -> Profile:
    """Profile both models in a fresh process; `folder` takes the profiler's files.

    Raises:
        StageError: a model does not load or run.
    """
    job = {
        "models": [str(path) for path in models],
        "threads": settings.threads,
        "feed": feed.job(),
        "one_node": one_node.job(),
        "folder": str(folder),
    }
    return Profile(**child.ask("profiler", job, (settings.lock,)))
