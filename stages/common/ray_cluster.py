"""The connection to a Ray cluster. Ray is an optional dependency, so it is imported only here, when needed."""

import importlib
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.common.base.errors import StageError


@contextmanager
def connected(address: str | None, *, missing: str, unreachable: str, **options: Any) -> Iterator[Any]:
    """Yield the `ray` module, connected; leaving the block ends every actor and task of this job.

    `address` and `options` are those of `ray.init`.

    Raises:
        StageError: `missing` if Ray is not installed, `unreachable` if no cluster answers.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise StageError(missing) from error
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    host, _, port = (address or "").rpartition("//")[2].rpartition(":")
    try:
        if port.isdigit():  # fails at once if nothing listens; Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, ValueError) as error:
        raise StageError(unreachable) from error
    try:
        for number, handler in handlers.items():  # Ray installs its own
            signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()
