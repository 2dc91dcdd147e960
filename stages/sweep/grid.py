"""The experiments of a sweep: overrides in DVC's own syntax, a name for each that a second call finds again."""

import hashlib
import json
from collections.abc import Sequence

from stages.common.base.errors import ParamsError

Overrides = tuple[str, ...]


def expand(overrides: Sequence[str]) -> list[Overrides]:
    """All combinations, as `dvc exp run --queue -S` makes them: `a=1,2` is two, `choice()` and `range()` work.

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
    """The same commit and overrides have the same name, in whatever order the overrides stand."""
    text = json.dumps([commit, sorted(overrides)])
    return f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
