import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from stages.common.base.errors import StageError
from stages.common.timing.lock import alone

ROOT = Path(__file__).resolve().parents[2]

# Until its standard input ends, this process holds the lock and has a child, as bench does. It prints when it starts
# and when it ends.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from stages.common.timing.lock import alone
with alone(Path(sys.argv[1])) as lock:
    start = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=(lock,))
    print("start", start, flush=True)
    child.wait()
    print("end", time.monotonic(), flush=True)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def rest(stream: IO[str] | None) -> str:
    assert stream is not None
    with stream:
        return stream.read()


def test_three_at_once_go_one_after_the_other_and_say_for_whom_they_wait(tmp_path: Path) -> None:
    benches = [hold(tmp_path / "lock")]
    lines = [first_line(benches[0].stdout)]
    benches += [hold(tmp_path / "lock") for _ in range(2)]
    waits = [first_line(bench.stderr) for bench in benches[1:]]
    for message in waits:
        assert message.startswith(f"Waiting for another bench on this machine: process {benches[0].pid} in {ROOT}")
    for bench in benches:
        assert bench.stdin is not None
        bench.stdin.close()
    lines += [line for bench in benches for line in rest(bench.stdout).splitlines()]
    assert "".join(rest(bench.stderr) for bench in benches) == ""
    moments = sorted((float(time), word) for word, time in map(str.split, lines))
    assert [word for _, word in moments] == ["start", "end"] * 3


def test_killing_the_first_lets_the_next_go_on_once_its_measuring_process_is_gone(tmp_path: Path) -> None:
    with hold(tmp_path / "lock") as first:
        first_line(first.stdout)
        with hold(tmp_path / "lock") as second:
            first_line(second.stderr)
            first.send_signal(signal.SIGKILL)
            # Nothing ends the orphan here, as on systems other than Linux: it outlives its parent, and the lock waits.
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=0.5)
            assert first.stdin is not None
            first.stdin.close()
            assert first_line(second.stdout).startswith("start ")


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
