"""What every `python -m stages.NAME` shares: help, one-line errors, signals, exit codes."""

import argparse
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import NoReturn

from stages import INTERRUPTED
from stages.common.base import signals
from stages.common.base.errors import StageError

Main = Callable[[argparse.Namespace], int | None]
AddArguments = Callable[[argparse.ArgumentParser], None]

_WIDTH = 120
"""Width of a wrapped paragraph, in columns; less on a narrower terminal."""

_LONGEST = 160
"""Longer lines are wrapped even if the terminal is wider, or the output is not a terminal."""

_BEFORE = re.compile(r".* {2,}|\d+\. |- | *")
"""What stands before the text of a line: the other columns of a table, a number, a bullet or an indent."""

_TO_COPY = re.compile(r"(Next: )?(dvc|pip|python) ")
"""The start of a command to copy, which the shell takes only as one line."""

EXIT_CODES = "Exit codes: 0 done, whatever the verdict; 1 failed, one line on stderr says why; 2 wrong usage or params."


def run(
    name: str,
    description: str | None,
    main: Main,
    add_arguments: AddArguments | None = None,
    exit_codes: str = EXIT_CODES,
) -> NoReturn:
    """Run `main` of `python -m stages.<name>`, and exit.

    Exit codes: what `main` returns (None is 0), 1 for a `StageError`, 2 for wrong usage or params, 130 for Ctrl-C,
    143 for SIGTERM, 129 for SIGHUP. An error is one line on stderr; `--debug` prints the traceback above it.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {__name__.partition('.')[0]}.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=textwrap.fill(exit_codes, _WIDTH),
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if add_arguments is not None:
        add_arguments(parser)
    arguments = parser.parse_args()
    signals.install()
    try:
        code = outcome(main, arguments)
    except (KeyboardInterrupt, signals.TerminatedError) as error:  # a signal came while another error was handled
        code = _failure(error, arguments.debug)
    sys.exit(code)


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` of a script that reads its own arguments, and exit; an error is one line, as in `run`."""
    signals.install()
    sys.exit(outcome(lambda _: main(), argparse.Namespace(debug=False)))


def show(text: str) -> None:
    """Print the output of a stage, with long lines wrapped at words: paragraphs, and the last column of a table."""
    longest = min(shutil.get_terminal_size((_LONGEST, 0)).columns, _LONGEST)
    for line in text.splitlines():
        print(_wrapped(line, min(longest, _WIDTH)) if len(line) > longest else line)


def _wrapped(line: str, width: int) -> str:
    """`line` in lines of at most `width` columns, aligned; unchanged if it is a command, or mostly other columns."""
    before = _BEFORE.match(line)
    indent = before.end() if before else 0
    if 2 * indent > width or _TO_COPY.match(line, indent):
        return line
    folder = textwrap.TextWrapper(width, line[:indent], " " * indent, break_long_words=False, break_on_hyphens=False)
    return folder.fill(line[indent:])


def outcome(main: Main, arguments: argparse.Namespace) -> int:
    """Run `main` and return the exit code; then ignore signals, as nothing is left that they could undo."""
    try:
        code = main(arguments) or 0
        sys.stdout.flush()
        signals.ignore()
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): the files are written, so nothing is lost.
        signals.ignore()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt, signals.TerminatedError) as error:
        return _failure(error, arguments.debug)
    return code


def _failure(error: BaseException, debug: bool) -> int:
    """Print in one line what failed, and return the exit code."""
    signals.ignore(raising=False)
    if debug:
        traceback.print_exception(error)
    sentence, code = _explained(error)
    print(" ".join(sentence.split()), file=sys.stderr)
    return code


def _explained(error: BaseException) -> tuple[str, int]:
    """One sentence and the exit code; if a signal arrived, it is the cause, whatever a library raised."""
    stopped = signals.received()
    if stopped == signal.SIGINT or isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, 128 + signal.SIGINT
    if stopped is not None:
        return "Terminated: nothing half-written is left behind.", 128 + stopped
    match error:
        case StageError():
            return f"Error: {error}", error.exit_code
        case MemoryError():
            return "Error: Out of memory. Lower serving.batch_size, or run on a machine with more RAM.", 1
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return f"Error: {place}{error.strerror or error}. Fix that and run again.", 1
        case _:
            return f"Error: Unexpected {type(error).__name__}: {error}. Please report it with the output of --debug.", 1
