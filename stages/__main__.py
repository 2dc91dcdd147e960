"""The command of the installed package: `onnx-int8 inspect model.onnx` is `python -m onnx_int8.inspect model.onnx`."""

import argparse
import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent


def main() -> None:
    """Run the package named by the first argument, with the other arguments."""
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/__main__.py"))
    parser = argparse.ArgumentParser("onnx-int8" if PACKAGE.name == "onnx_int8" else f"python -m {PACKAGE.name}")
    parser.add_argument("command", choices=rooms, help="add --help to see what it reads and writes")
    name = parser.parse_args(sys.argv[1:2] or ["--help"]).command
    sys.argv = [f"{parser.prog} {name}", *sys.argv[2:]]
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: export.source may name a module of the repository
    runpy.run_module(f"{PACKAGE.name}.{name}.__main__", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
