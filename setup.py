"""The wheel: the code of stages/ under a name of its own, `onnx_int8`, so that a repository may have a stages/ too.

What `python -m onnx_int8.init` installs (dvc.yaml, params.yaml, ...) goes into onnx_int8/init/template.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "onnx_int8"
ROOT = Path(__file__).resolve().parent
ROOMS = "|".join(sorted(path.stem for path in (ROOT / "stages").iterdir() if path.stem.isidentifier()))
TEMPLATE = ("dvc.yaml", "params.yaml", ".dvcignore", "artifacts/.gitignore", ".dvc/plots", "models", "requirements.txt")


class Renamed(build_py):
    """Copies the modules with `stages.ROOM` as `onnx_int8.ROOM`, in imports and in what they print."""

    def run(self) -> None:
        """Build, rename, add the template."""
        super().run()
        built = Path(self.build_lib, PACKAGE)
        for module in built.rglob("*.py"):
            text = module.read_text(encoding="utf-8")
            text = re.sub(rf"\bstages\.(?=(?:{ROOMS})\b)|\bstages(?= import )", f"{PACKAGE}.", text)
            module.write_text(text.replace(f"{PACKAGE}. import", f"{PACKAGE} import"), encoding="utf-8")
        template = built / "init" / "template"
        for name in TEMPLATE:
            target = template / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / name, target)


setup(
    packages=[PACKAGE, *(f"{PACKAGE}.{name}" for name in find_packages("stages"))],
    package_dir={PACKAGE: "stages"},
    package_data={"": ["*.css", "*.html", "*.js"]},
    cmdclass={"build_py": Renamed},
)
