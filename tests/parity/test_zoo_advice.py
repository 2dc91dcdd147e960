"""Follow all advice for a few real models; `python -m benchmarks.advice` does so for all of them."""

from pathlib import Path

import pytest

from benchmarks.advice import METHODS, in_circles, judged
from tests.zoo import ZOO, needs_zoo


@needs_zoo
@pytest.mark.extended
@pytest.mark.parametrize("name", ["skl_mlp_digits_zipmap", "skl_mlp_reg_diabetes"])
def test_every_advice_does_what_it_says_and_no_two_methods_point_at_each_other(name: str, tmp_path: Path) -> None:
    assert ZOO is not None
    rows = [
        {"model": name, "method": method} | row
        for method in METHODS
        for row in judged(ZOO / name, method, tmp_path / method, speed=False)
    ]
    # Timings decide whether a variant is advised, and which of equally fast models auto picks.
    assert [row for row in rows if row["outcome"] == "misses" and not row["said"]] == []
    exact = [row for row in rows if row["outcome"] == "WRONG" or "quantize.method=auto" not in row.get("advice", "")]
    assert [row for row in exact if row["outcome"] not in ("ok", "passes", "misses")] == []
    assert list(in_circles(rows)) == []
