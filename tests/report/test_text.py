"""Markdown that no name can break, and numbers that a reviewer can read."""

from typing import Any

import pytest
from markdown_it import MarkdownIt

from stages.report.text import code, escape, number, plural, setting, table

NAMES = [
    "a|b",
    "<script>x</script>",
    "*bold*",
    "_under_",
    "a_b_c",
    "`tick`",
    "a``b",
    "[x](http://y)",
    "~~gone~~",
    "a\\b",
    "&amp;",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dress", [escape, code])
def test_a_name_in_a_cell_reads_as_it_is(name: str, dress: object) -> None:
    assert callable(dress)
    html = (
        MarkdownIt("commonmark", {"html": True})
        .enable(["table", "strikethrough"])
        .render(table(("name", "next"), [(dress(name), "x")]))
    )
    cell = html[html.index("<tbody>") :].split("<td>")[1].split("</td>")[0]
    text = cell.removeprefix("<code>").removesuffix("</code>")
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, character)
    assert text == name


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "MB", "–"),
        (1.0, "MB", "1 MB"),
        (7.886e-05, "", "7.886e-05"),
        (13760.0, "ms", "13,760 ms"),
        (123456, "", "123,456"),
        (1.9561, "×", "1.956×"),
        ("a|b", "", "a\\|b"),
    ],
)
def test_numbers(value: object, unit: str, shown: str) -> None:
    assert number(value, unit) == shown


def test_singular_and_plural() -> None:
    assert (plural(1, "core"), plural(2, "core"), plural(1200, "sample")) == ("1 core", "2 cores", "1,200 samples")


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "null"), (True, "true"), (1e-3, "0.001"), (["a/b", None], "[a/b, null]"), ([], "[]")]
)
def test_a_setting_is_shown_as_dvc_takes_it(value: Any, shown: str) -> None:
    assert setting(value) == shown
