"""YAML is read exactly as DVC reads it."""

import datetime
import math
from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.common.base import yaml12

ROOT = Path(__file__).resolve().parents[2]

SCALARS = """
1 0 -0 +1 -17 010 08 0_1 007 1_000 1__0 1_ _1 0b11 0b -0b1 0B1 0o10 0o8 -0o7 0O7 0x1F 0x 0xFg -0x1f 0X1F
1,000 --1 ++1 1-1 1.0 0.0 -1.5 +2.5 5. .5 -.5 +.5
1_0.5 0.1_5 09.5 1.2.3 ..5 . + - -. 1e3 1e-3 1E5 1e+3 12e03 +12e03 -1e-3 1.e3 1.5e+3
1.5e3 .5e3 .5e+3 +.5e3 1e e3 1e1_0 1e-03 1.0e-09 1e400 .inf .Inf -.INF +.inf inf .nan .NaN .NAN -.nan nan
true True TRUE tRUE false False FALSE yes Yes YES no No NO on On ON off Off OFF y Y n N t f
null Null NULL nULL ~ '' "" "1e-3" '1' "true" 'null' 1:30 190:20:30 190:20:30.15 1:2 12:30:45 QInt8 /encoder/*
models.digits:build a_b 3.11.7 0.1.0 <<x =x 1e-3x 0.04 1e-12 [] {} [1]
""".split()  # noqa: SIM905 - a table is easier to read


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


def test_there_are_a_hundred_scalars() -> None:
    assert len(set(SCALARS)) >= 100


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_is_what_dvc_reads(scalar: str) -> None:
    try:
        expected = parse_yaml(f"key: {scalar}", "params.yaml")["key"]
    except Exception:
        with pytest.raises(yaml12.YamlError):
            yaml12.load(f"key: {scalar}")
        return
    assert same(yaml12.load(f"key: {scalar}")["key"], expected)


@given(st.text(alphabet="0123456789+-.eExobinfaulstryNF", min_size=1, max_size=8))
def test_what_looks_like_a_number_is_what_dvc_reads(scalar: str) -> None:
    text = f"key: {scalar}"
    try:
        expected = parse_yaml(text, "params.yaml")["key"]
    except Exception:
        return
    if not isinstance(expected, datetime.date | dict | list):
        assert same(yaml12.load(text)["key"], expected)


def test_params_yaml_is_what_dvc_reads() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert yaml12.load(text) == parse_yaml(text, "params.yaml")


def test_anchors_and_merges_are_what_dvc_reads() -> None:
    text = "base: &base {a: 1, b: 1e-3}\nother: {<<: *base, a: 2}\nlist: [*base]\n"
    assert yaml12.load(text) == parse_yaml(text, "params.yaml")


def test_a_date_stays_text() -> None:
    assert yaml12.load("2026-01-31") == "2026-01-31"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a' on line 3"),
        ("x:\n  a: 1\n  'a': 1\n", "duplicate key 'a' on line 3"),
        ("a: 1\nb: {{ rate }}\n", "a key that is a mapping or a list (text in braces needs quotes) on line 2"),
        ("a: [1", "on line 1"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x00", "a character that YAML does not allow"),
    ],
)
def test_what_is_not_yaml_names_the_line(text: str, message: str) -> None:
    with pytest.raises(yaml12.YamlError) as caught:
        yaml12.load(text)
    assert message in str(caught.value)
