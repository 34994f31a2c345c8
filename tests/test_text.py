"""Nothing that a terminal would obey or hide comes through; ordinary names do unchanged."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_lowrank.text import (
    NAME_LENGTH,
    markdown_cell,
    printable,
    printable_name,
    spreadsheet_cell,
)


@pytest.mark.parametrize(
    "text",
    ["features/conv1_2:0", "Größe 層 слой", "[bold]x[/bold] {a} \\d %s", "é 🙂", "<b>&amp;"],
)
def test_visible_text_is_unchanged(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\r\tc\0\x7f\x9b", "a\\x0ab\\x0d\\x09c\\x00\\x7f\\x9b"),
        ("\u202ea\u2066b\u200b\ufeff\u2028", "\\u202ea\\u2066b\\u200b\\ufeff\\u2028"),
        ("\ud800\udc80", "\\ud800\\udc80"),
        ("\U000e0041\U000e0100\u3164\u00a0", "\\U000e0041\\U000e0100\\u3164\\xa0"),
    ],
)
def test_what_is_not_seen_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@given(st.text(st.characters()))
def test_the_result_is_one_line_of_visible_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode()  # no lone surrogate is left


def test_no_control_or_format_character_of_unicode_comes_through() -> None:
    every = map(chr, range(sys.maxunicode + 1))
    hidden = [c for c in every if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert len(hidden) > 2000
    assert all(printable(c).isascii() and len(printable(c)) > 1 for c in hidden)


def test_long_text_is_given_by_its_ends() -> None:
    name = "a" * 200_000 + "b" * 100_000
    shown = printable_name(name)
    assert shown.startswith("aaa")
    assert shown.endswith("bbb")
    assert "300,000 characters" in shown
    assert len(shown) < NAME_LENGTH + 40
    assert printable(name, None) == name


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "=cmd|'/c calc'!A1"])
def test_a_spreadsheet_computes_no_name(text: str) -> None:
    assert spreadsheet_cell(text) == "'" + text
    assert spreadsheet_cell("\t" + text) == "\\x09" + text
    assert spreadsheet_cell("conv" + text) == "conv" + text


def test_a_name_is_no_markup_in_markdown() -> None:
    assert markdown_cell("conv_1/x:0") == "conv_1/x:0"
    assert markdown_cell("a|b\n<img>[x](y)`c`") == r"a\|b\\x0a&lt;img&gt;\[x\](y)\`c\`"
