"""Both ends of a worker: a fresh interpreter that reads one job as JSON and answers in JSON.

Memory layout differs between processes and stays the same within one, so one process is one observation.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.base import signals
from stages.common.base.errors import StageError

_ROOT = Path(__file__).resolve().parents[3]


def ask(worker: str, job: Mapping[str, Any], keep: Sequence[int] = ()) -> Any:
    """Do `job`, which must fit into JSON, in a fresh process, and return its answer.

    Args:
        worker: the full name of a module that calls `serve`.
        job: passed to its `work`.
        keep: file descriptors that the process keeps open, such as that of the lock.

    Raises:
        StageError: the worker reported an error, or died.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", worker, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))},
        pass_fds=keep,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        answer, stderr = process.communicate(json.dumps(job))
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0:
        raise StageError(_cause_of_death(process.returncode, stderr))
    tree = json.loads(answer)
    if "error" in tree:
        raise StageError(tree["error"])
    return tree["answer"]


def serve(work: Callable[[Any], Any]) -> None:
    """The worker's end of `ask`: read the job, `work`, answer. Dies with the process that started it."""
    signals.die_with_parent(signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it ended before this took effect
        os._exit(1)
    # What libraries print must not end up in the answer.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        tree = {"answer": work(json.load(sys.stdin))}
    except StageError as error:
        tree = {"error": str(error)}
    json.dump(tree, out)
    out.close()


def _cause_of_death(code: int, stderr: str) -> str:
    if code == -signal.SIGKILL:
        return (
            "A measuring process was killed (SIGKILL), as Linux does when memory runs out. "
            "Lower serving.batch_size and bench.batch_sizes, or run on a machine with more RAM."
        )
    if code < 0:
        return (
            f"A measuring process died of {signal.Signals(-code).name}, probably inside ONNX Runtime. "
            "Run parity to see whether both models run."
        )
    last = stderr.strip().splitlines()[-1:] or ["it printed nothing"]
    return f"A measuring process failed: {last[0].rstrip('.')}. Please report it."
