"""The command of the installed package: `onnx-int8 inspect model.onnx` is `python -m onnx_int8.inspect model.onnx`."""

import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent


def main() -> None:
    """Run the package named by the first argument, with the other arguments."""
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/__main__.py"))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in rooms:
        asked = name in ("", "-h", "--help")
        print(
            f"usage: onnx-int8 {{{','.join(rooms)}}} ... (--help after one of them)",
            file=sys.stdout if asked else sys.stderr,
        )
        sys.exit(0 if asked else 2)
    sys.argv = [f"onnx-int8 {name}", *sys.argv[2:]]
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: export.source may name a module of the repository
    runpy.run_module(f"{PACKAGE.name}.{name}.__main__", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
