"""How a stage starts and ends, tested on processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.base import command

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("host", "export", "quantize", "parity", "bench", "gate", "report")

PROGRAM = """
import os, pathlib, signal, sys, time
from stages.common.base import command, files
from stages.common.base.errors import ParamsError, StageError

def main(arguments):
    {body}

command.run("trial", "Tries.", main)
"""


def start(tmp_path: Path, body: str, *arguments: str) -> "subprocess.Popen[str]":
    program = PROGRAM.format(body=body)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 what runs the tests may ignore it
    )


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise StageError('Too\\n   bad.')", 1, "Error: Too bad.\n"),
        ("raise ParamsError('No such key.')", 2, "Error: No such key.\n"),
        ("open('nowhere/x')", 1, "Error: nowhere/x: No such file or directory. Fix that and run again.\n"),
        (
            "raise MemoryError",
            1,
            "Error: Out of memory. Lower serving.batch_size, or run on a machine with more RAM.\n",
        ),
        ("raise KeyboardInterrupt", 130, "Interrupted: nothing half-written is left behind.\n"),
        (
            "1 / 0",
            1,
            "Error: Unexpected ZeroDivisionError: division by zero. Please report it with the output of --debug.\n",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path, body: str, code: int, line: str) -> None:
    process = start(tmp_path, body)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (code, line)


def test_debug_shows_where(tmp_path: Path) -> None:
    _, stderr = start(tmp_path, "raise StageError('Too bad.')", "--debug").communicate(timeout=60)
    assert "Traceback" in stderr
    assert stderr.endswith("Error: Too bad.\n")


def test_a_reader_that_leaves_is_not_an_error(tmp_path: Path) -> None:
    process = start(tmp_path, "[print('x' * 1000) for _ in range(1000)]")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_long_lines_are_wrapped_and_table_rows_are_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    row = "x " * 79 + "xx"
    command.show(f"{row}\n\n{'a sentence of words ' * 20}")
    first, blank, *folded = capsys.readouterr().out.splitlines()
    assert (first, blank) == (row, "")
    assert max(map(len, folded)) <= 120
    assert " ".join(folded) == ("a sentence of words " * 20).rstrip()


def test_on_a_narrow_terminal_paragraphs_fold_and_what_is_copied_or_aligned_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    command.show(
        "operator    quantized    kept float\n"
        "MatMul      0 of 3       3 kept: INT8 would not make them smaller\n"
        "1. dvc exp run -S quantize.method=static -S 'quantize.exclude_nodes=[a,b]'\n"
        "   passes on all 539 judged samples (largest difference 0.025)\n"
        "0.0252      0.00188      8.55e-05      0.0031      50.7      100.00 %"
    )
    assert capsys.readouterr().out.splitlines() == [
        "operator    quantized    kept float",
        "MatMul      0 of 3       3 kept: INT8 would not make them",
        "                         smaller",
        "1. dvc exp run -S quantize.method=static -S 'quantize.exclude_nodes=[a,b]'",
        "   passes on all 539 judged samples (largest difference",
        "   0.025)",
        "0.0252      0.00188      8.55e-05      0.0031      50.7      100.00 %",
    ]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_cleans_up(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    body = """
    with files.replacing(pathlib.Path('out')) as temporary:
        temporary.write_text('half')
        print('ready', flush=True)
        time.sleep(60)
"""
    process = start(tmp_path, body)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "nothing half-written" in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stage_outlives_its_terminal_under_nohup(tmp_path: Path) -> None:
    command = "trap '' HUP; exec \"$@\""
    program = PROGRAM.format(body="os.kill(os.getpid(), signal.SIGHUP); return 3")
    done = subprocess.run(["sh", "-c", command, "", sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent ended")
def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path: Path) -> None:
    body = """
    print('ready', flush=True)
    time.sleep(5)
    files.write_json(pathlib.Path('metrics.json'), {})
"""
    parent = subprocess.Popen(
        ["sh", "-c", '"$@" & wait', "", sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "DVC_STAGE": "export"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    _, stderr = parent.communicate(timeout=60)  # the stage holds the other end
    assert stderr == "Terminated: nothing half-written is left behind.\n"
    assert list(tmp_path.iterdir()) == []


SWALLOWED = """
    with files.replacing(pathlib.Path('out')) as temporary:
        temporary.write_text('half')
        print('ready', flush=True)
        try:
            time.sleep(60)
        except BaseException{raising}
    files.write_json(pathlib.Path('metrics.json'), {{}})
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("raising", [": pass", " as error: raise RuntimeError('the training failed') from error"])
def test_a_signal_that_code_in_between_swallows_still_ends_the_stage(
    tmp_path: Path, sent: signal.Signals, code: int, raising: str
) -> None:
    process = start(tmp_path, SWALLOWED.format(raising=raising))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.count("\n")) == (code, 1)
    assert list(tmp_path.iterdir()) == []


EVERYWHERE = """
import contextlib, io, json, signal, sys
from stages.common.base import command, signals
from stages.common.base.errors import StageError

OURS = (command.__file__, signals.__file__)
BODIES = {"ends well": lambda: None, "fails": lambda: 1 / 0, "closes": lambda: print("x", file=Closed())}

class Closed:
    def write(self, text): raise BrokenPipeError

def outcome(body, point):
    left = point

    def trace(frame, event, _):
        nonlocal left
        left -= frame.f_code.co_filename in OURS
        if left == 0 and event != "call":
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return trace

    def main(arguments):
        for depth in (1, 2):
            sys._getframe(depth).f_trace = trace
        sys.settrace(trace)
        return body()

    signals._STATE.received = None
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            command.run("trial", "Tries.", main)
    except SystemExit as end:
        return left > 0, end.code, shown.getvalue().count("\\n")
    finally:
        sys.settrace(None)

outcomes = []
for name, body in BODIES.items():
    point, beyond = 1, False
    while not beyond:
        beyond, code, lines = outcome(body, point)
        outcomes.append([name, point, code, lines])
        point += 1
with open("outcomes.json", "w") as file:
    json.dump(outcomes, file)
"""


def test_a_signal_at_any_place_after_the_work_gives_one_outcome_and_no_noise(tmp_path: Path) -> None:
    """A signal at each line and return of command.py and signals.py: either 143 and one line, or no effect."""
    run = subprocess.run(
        [sys.executable, "-c", EVERYWHERE], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.stderr == ""
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    undisturbed = {"ends well": (0, 0), "fails": (1, 1), "closes": (0, 0)}
    assert {name for name, *_ in outcomes} == set(undisturbed)
    for name, point, code, lines in outcomes:
        assert (code, lines) in {undisturbed[name], (143, 1)}, (name, point)
    assert {code for name, _, code, _ in outcomes if name == "ends well"} == {0, 143}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_python_shuts_down_comes_too_late(tmp_path: Path, sent: signal.Signals) -> None:
    process = start(tmp_path, f"import atexit; atexit.register(os.kill, os.getpid(), {sent.value}); return 3")
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (3, "")


def test_a_signal_between_two_files_that_belong_together_waits_for_the_second(tmp_path: Path) -> None:
    body = """
    replace = pathlib.Path.replace

    def slow(self, target):
        result = replace(self, target)
        if target.name == 'one.csv':
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return result

    pathlib.Path.replace = slow
    with files.together() as outputs:
        outputs.csv(pathlib.Path('one.csv'), ['a'], [])
        outputs.json(pathlib.Path('two.json'), {})
    print('not reached')
"""
    process = start(tmp_path, body)
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.csv", "two.json"]


def test_a_stage_run_from_another_folder_names_the_right_one(tmp_path: Path) -> None:
    """`make repro` installs this file, as Python fails before any code of ours is found."""
    (tmp_path / "stages.py").write_bytes((ROOT / ".ci/elsewhere.py").read_bytes())
    (tmp_path / "elsewhere").mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "stages.gate"],
        cwd=tmp_path / "elsewhere",
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    root = Path(sys.prefix).parent
    expected = (
        f"Error: There is no stages/ in {tmp_path / 'elsewhere'}. Change to the root of the repository, {root}.\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (1, "", expected)


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ([], 0, "usage: python -m stages [-h]"),
        (["gte"], 2, "python -m stages: error: argument command: invalid choice: 'gte' (choose from "),
        (["gate", "--strct"], 2, "python -m stages.gate: error: unrecognized arguments: --strct"),
    ],
)
def test_the_command_names_its_choices(arguments: list[str], code: int, line: str) -> None:
    run = [sys.executable, "-m", "stages", *arguments]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert line in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-S", "-m", "stages.gate"], f"{sys.executable} has no module pydantic. Activate the environment with"),
        (["-c", "import sys; sys.version_info = (3, 10, 4); import stages"], "Python 3.10 is too old: 3.11 or newer"),
    ],
)
def test_another_python_than_that_of_the_environment_is_one_line(arguments: list[str], line: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"Error: {line}")


@pytest.mark.parametrize("stage", STAGES)
def test_help_says_what_a_stage_reads_and_writes(stage: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"Reads", "Writes", "Params"} <= {line.split()[0] for line in shown.stdout.splitlines() if line.strip()}
    assert "--debug" in shown.stdout


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ("parity", "With a tolerance given, a miss exits with 1."),
        ("bench", "A failed --self-check exits with 1."),
        ("sweep", "1 an experiment failed, or the sweep did;"),
    ],
)
def test_help_names_the_exit_codes_of_options(stage: str, sentence: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert sentence in " ".join(shown.stdout.split())


@pytest.mark.parametrize("stage", STAGES)
def test_wrong_usage_exits_2(stage: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", "--no-such"], cwd=ROOT, capture_output=True, check=False
    )
    assert run.returncode == 2


@pytest.mark.parametrize("command", [["-m", "stages.host"], ["-mstages.gate", "--debug"]])
def test_an_interrupt_while_a_stage_loads_its_libraries_is_one_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Sender:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pydantic':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Sender())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    )
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "Interrupted: nothing half-written is left behind.\n")


def test_a_signal_as_a_temporary_folder_is_made_leaves_none(tmp_path: Path) -> None:
    body = """
    def stop(frame, event, argument):
        if event == 'return' and frame.f_code.co_name == 'mkdtemp':
            os.kill(os.getpid(), signal.SIGTERM)
        return stop
    import tempfile
    tempfile.tempdir = '.'
    sys.settrace(stop)
    with files.scratch('trial'):
        print('not reached')
"""
    process = start(tmp_path, body)
    assert process.communicate(timeout=60) == ("", "Terminated: nothing half-written is left behind.\n")
    assert list(tmp_path.iterdir()) == []


def test_no_usage_data_are_sent(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry would keep an identifier of the machine in the user's cache."""
    environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    code = "import stages, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, list(tmp_path.iterdir())) == ("1\n", [])
