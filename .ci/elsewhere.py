"""Installed as `stages` in the environment of `make repro`: what `python -m stages.NAME` finds outside of the checkout.

In the checkout, and in DVC's copies of it, the current folder comes first and the real package is found.
"""

import sys
from pathlib import Path

sys.exit(
    f"Error: There is no stages/ in {Path.cwd()}. Change to the root of the repository, {Path(sys.prefix).parent}."
)
