"""The pictures: what they draw, from which revision, and that they draw the same each time."""

from pathlib import Path
from typing import Any

import pytest

from stages.report import stage
from stages.report.drawing import Picture
from stages.report.pictures import pictures
from tests.report.trees import DETAILS, FRONTIER, METRICS, Repository, changed

ERRORS = "output,low,high,values,share\nprob,0.0,0.0,60,0.6\nprob,1e-3,1e-2,30,0.3\nprob,1e-2,3e-2,10,0.1\n"
LATENCY = "quantile,fp32_ms,int8_ms\n0.5,1.0,0.5\n0.99,1.4,0.9\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository(tmp_path)
    (tmp_path / "metrics/details/parity_errors.csv").write_text(ERRORS)
    (tmp_path / "metrics/details/bench_latency.csv").write_text(LATENCY)
    repository.commit()
    monkeypatch.chdir(tmp_path)
    return repository


def drawn(base: str | None = "main") -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures(stage.run(base))}


def rows(picture: Picture) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = picture.spec["data"]["values"]
    return values


def test_four_pictures_of_both_revisions(repository: Repository) -> None:
    repository.write(changed(METRICS, parity__diff__max_abs=0.03))
    pictures_drawn = drawn()
    assert list(pictures_drawn) == ["speedup", "tradeoff", "differences", "latency"]
    assert [(row["side"], row["speedup"], row["low95"]) for row in rows(pictures_drawn["speedup"])] == [
        ("base", 2.0, 1.9),
        ("this", 2.0, 1.9),
    ]
    assert [(row["kind"], row["x"], row["y"]) for row in rows(pictures_drawn["tradeoff"])] == [
        ("base", 0.02, 2.0),
        ("this", 0.03, 2.0),
        ("fp32", 0.0, 1.0),
    ]
    survival = {row["x"]: row["y"] for row in rows(pictures_drawn["differences"]) if row["side"] == "this"}
    assert survival == pytest.approx({1e-2: 0.1, 1e-3: 0.4})
    assert len(rows(pictures_drawn["latency"])) == 8


def test_the_models_that_auto_timed_are_drawn_by_the_tolerance_that_they_use(repository: Repository) -> None:
    (repository.root / "metrics/details/frontier.csv").write_text(FRONTIER)
    picture = drawn()["tradeoff"]
    points = [(row["kind"], row["x"], row["y"]) for row in rows(picture)]
    assert points == [("tried", 0.22, 1.5), ("base", 0.5, 2.0), ("this", 0.5, 2.0), ("fp32", 0.0, 1.0)]
    assert ">limit<" in picture.svg()
    assert "tried, model 2: speed-up 1.5 (1.4 to 1.6), 22% of the tolerance used, 2.5 MB" in picture.svg()


@pytest.mark.parametrize("rules", [[], [{"rule": "of another version"}]])
def test_a_base_whose_tolerance_is_unknown_is_not_drawn_by_it(repository: Repository, rules: list[Any]) -> None:
    repository.write(details=changed(DETAILS, parity__rules=rules))
    repository.commit()
    repository.write()
    (repository.root / "metrics/details/frontier.csv").write_text(FRONTIER)
    assert [row["kind"] for row in rows(drawn("HEAD")["tradeoff"])] == ["tried", "this", "fp32"]


def test_the_tolerance_is_a_line(repository: Repository) -> None:
    text = drawn(None)["differences"].svg()
    assert "tolerance 0.04" in text
    assert "var(--limit)" in text


def test_another_machine_is_not_drawn(repository: Repository) -> None:
    repository.write(
        changed(METRICS, host__machine_id="b" * 12), changed(DETAILS, bench__measured__machine_id="b" * 12)
    )
    pictures_drawn = drawn()
    assert {row["side"] for row in rows(pictures_drawn["speedup"])} == {"this"}
    assert {row["side"] for row in rows(pictures_drawn["latency"])} == {"this"}
    assert {row["side"] for row in rows(pictures_drawn["differences"])} == {"base", "this"}


def test_what_was_not_measured_is_left_out(repository: Repository) -> None:
    (repository.root / "metrics/details/parity_errors.csv").write_text("output,error\nprob,1\n")
    (repository.root / "metrics/details/bench_latency.csv").unlink()
    repository.write(METRICS, changed(DETAILS, bench__batches=[{"batch": 1, "not_measured": "equal files"}]))
    assert list(drawn(None)) == ["tradeoff"]


def test_every_picture_draws_in_each_theme_the_same_twice(repository: Repository) -> None:
    for picture in drawn().values():
        svg, light = picture.svg(), picture.png("light")
        assert svg.startswith("<svg")
        assert "@" not in svg
        assert svg == picture.svg()
        assert light.startswith(b"\x89PNG")
        assert light != picture.png("dark")


def test_markdown_links_the_files_that_it_wrote(repository: Repository) -> None:
    text = repository.report("--base", "main", "--pictures", "out/pictures").stdout
    written = sorted(path.name for path in (repository.root / "out/pictures").iterdir())
    assert len(written) == 8
    assert all(f'"out/pictures/{name}"' in text for name in written)
