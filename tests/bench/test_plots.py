import json
from pathlib import Path

import numpy as np
import pytest

from stages.bench import figures
from stages.bench.stage import BenchResult
from stages.common.base import paths
from tests.bench.test_inputs import inputs
from tests.plots import unknown_fields

PLOTS = Path(__file__).resolve().parents[2] / ".dvc" / "plots"


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("bench_latency", paths.BENCH_LATENCY),
        ("bench_interval", paths.BENCH_SPEEDUP),
        ("bench_operators", paths.OPERATORS),
    ],
)
def test_a_template_reads_columns_that_exist(
    template: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = inputs(tmp_path, {"x": np.zeros((4, 1), np.float32)})
    monkeypatch.chdir(tmp_path)
    figures.write(BenchResult(subject, 1, None))
    columns = set(path.read_text(encoding="utf-8").strip().split(","))
    tree = json.loads((PLOTS / f"{template}.json").read_text(encoding="utf-8"))
    assert unknown_fields(tree, columns) == set()
