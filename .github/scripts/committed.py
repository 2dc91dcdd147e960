"""Do the committed metrics belong to the committed params, data and code? Exit 1 with what changed where they do not.

The pipeline runs again in the workflow, so its report is right in any case; what would be wrong after the merge are the
metrics in git, which the next pull request compares itself with.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from stages.gate.provenance import STAGES, stale


def main() -> int:
    """Ask DVC, print, and leave the sentence for the report."""
    done = subprocess.run(["dvc", "status", "--json", *STAGES], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return problem(f"dvc status fails: {done.stderr.strip().splitlines()[0]}")
    # Models live in DVC's cache and may not be here; that the pipeline made them, dvc.lock says.
    changes = [
        f"{change} since {stage} ran"
        for stage, change in stale(json.loads(done.stdout))
        if not change.startswith("artifacts/")
    ]
    if not changes:
        print("The committed metrics belong to this commit.")
        return 0
    return problem(
        f"The committed metrics are not those of this commit: {'; '.join(dict.fromkeys(changes))}. "
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
