"""Do the committed metrics belong to the committed params, data and code? Exits with 1 and names what changed if not.

The pipeline runs again in the workflow, so its report is right in any case; what would be wrong after the merge are the
metrics in git, which the next pull request compares itself with.
"""

import os
import sys
from pathlib import Path

from stages.common.base.errors import StageError
from stages.gate.provenance import changes_since_lock


def main() -> int:
    """Ask DVC, print, and leave the sentence for the report."""
    try:
        changes = changes_since_lock()
    except StageError as error:
        return problem(str(error))
    # Models live in DVC's cache and may not be here; dvc.lock shows that the pipeline made them.
    stages: dict[str, list[str]] = {}
    for stage, change in dict.fromkeys(changes):
        if not change.startswith("artifacts/"):
            stages.setdefault(change, []).append(stage)
    if not stages:
        print("The committed metrics belong to this commit.")
        return 0
    sentences = [f"{change}: {', '.join(affected)} must run" for change, affected in stages.items()]
    return problem(
        f"The committed metrics are not those of this commit: {'; '.join(sentences)}. "
        "Run `dvc repro`, and commit dvc.lock and metrics/."
    )


def problem(sentence: str) -> int:
    """Print a sentence, and keep it for the report."""
    folder = Path(os.environ.get("REPORT_FOLDER", "ci-report"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "problems.txt").open("a", encoding="utf-8") as file:
        print(sentence, file=file)
    print(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main())
