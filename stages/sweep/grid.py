"""The experiments of a sweep: overrides in DVC's syntax, each with a reproducible name."""

import hashlib
import json
from collections.abc import Sequence

from stages.common.base.errors import ParamsError

Overrides = tuple[str, ...]


def expand(overrides: Sequence[str]) -> list[Overrides]:
    """All combinations, as in `dvc exp run --queue -S`: `a=1,2` gives two, `choice()` and `range()` work.

    Raises:
        ParamsError: an override is not in this syntax.
    """
    from dvc.utils.hydra import get_hydra_sweeps
    from hydra.errors import HydraException

    try:
        sweeps = get_hydra_sweeps({"params.yaml": list(overrides)})
    except (HydraException, ValueError) as error:
        problem = str(error).splitlines()[0].rstrip(".")
        raise ParamsError(
            f"-S {' -S '.join(overrides)}: {problem}. Write key=value, or key=a,b for several."
        ) from error
    return [tuple(sweep["params.yaml"]) for sweep in sweeps]


def name(commit: str, overrides: Overrides) -> str:
    """A name that depends only on the commit and the overrides, in any order."""
    text = json.dumps([commit, sorted(overrides)])
    return f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
