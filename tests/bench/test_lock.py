import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from stages.common.base.errors import StageError
from stages.common.timing.lock import alone

ROOT = Path(__file__).resolve().parents[2]

# Holds the lock with a child of its own, as bench does; says when it starts and ends.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from stages.common.timing.lock import alone
with alone(Path(sys.argv[1])) as lock:
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({sys.argv[2]})"], pass_fds=(lock,))
    print("start", time.monotonic(), flush=True)
    child.wait()
    print("end", time.monotonic(), flush=True)
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def times(output: str) -> tuple[float, float]:
    start, end = (float(line.split()[1]) for line in output.splitlines())
    return start, end


def test_three_at_once_go_one_after_the_other_and_say_for_whom_they_wait(tmp_path: Path) -> None:
    benches = [hold(tmp_path / "lock", 0.5) for _ in range(3)]
    answers = [bench.communicate(timeout=60) for bench in benches]
    spans = sorted(times(output) for output, _ in answers)
    for (_, end), (start, _) in pairwise(spans):
        assert end <= start
    waits = [stderr for _, stderr in answers if stderr]
    assert len(waits) == 2
    for message in waits:
        assert message.startswith("Waiting for another bench on this machine: ")
        assert message.count("\n") == 1
    assert any(f"process {bench.pid} in {ROOT}" in message for message in waits for bench in benches)


def test_killing_the_first_lets_the_next_go_on_once_its_measuring_process_is_gone(tmp_path: Path) -> None:
    first = hold(tmp_path / "lock", 1.5)
    assert first.stdout is not None
    started = float(first.stdout.readline().split()[1])
    second = hold(tmp_path / "lock", 0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    output, _ = second.communicate(timeout=60)
    # The orphan here outlives its parent, as where no system call ties it to it: the lock waits for it too.
    assert times(output)[0] - started > 1.0
    first.stdout.close()
    assert first.stderr is not None
    first.stderr.close()


def test_a_lock_that_nobody_signed_is_waited_for_as_well(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("not json", encoding="utf-8")
    with alone(path):
        assert '"pid": ' in path.read_text(encoding="utf-8")


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone(tmp_path / "lock"):
        print(1 / 0)
    with alone(tmp_path / "lock"):
        pass


def test_a_symbolic_link_is_refused_and_what_it_points_at_stays(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept", encoding="utf-8")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(StageError, match=r"is a symbolic link\. Remove it"), alone(tmp_path / "lock"):
        pass
    assert target.read_text(encoding="utf-8") == "kept"


def test_a_link_to_nothing_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "absent")
    with pytest.raises(StageError, match="symbolic link"), alone(tmp_path / "lock"):
        pass
    assert not (tmp_path / "absent").exists()
