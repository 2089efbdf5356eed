"""How figures are written on the pages, and that the page about the service names every route."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

import service
from service.pages.filters import NOTHING, count, duration, moment, percent, plain, score

PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@given(st.floats(min_value=1, max_value=9e14))
def test_a_count_reads_back_within_its_three_digits(value: float) -> None:
    number, _, prefix = count(value).partition(" ")
    assert float(number) * PREFIXES[prefix] == pytest.approx(value, rel=5.1e-3)
    assert float(number) < 1000


@pytest.mark.parametrize(
    ("value", "text"),
    [(4_292_072, "4.29 M"), (999, "999"), (999_900, "1.00 M"), (123_456, "123 k"), (0, "0"), (None, NOTHING)],
)
def test_counts(value: float | None, text: str) -> None:
    assert count(value) == text


def test_scores_are_in_the_unit_of_their_label() -> None:
    assert score(0.93418, "top1") == "93.42"
    assert score(1.59, "latency_ms") == "1.590"
    assert score(2_780_200, "macs") == "2.78 M"
    assert score(None, "top1") == percent(None) == NOTHING


def test_plain_values() -> None:
    assert plain({"aten::gelu": 2, "x": [1, 2.5]}) == "aten::gelu: 2, x: 1, 2.5"
    assert (plain([]), plain({}), plain(True), plain(None)) == ("none", "none", "yes", NOTHING)
    assert plain(0.30000000000000004) == "0.3"


def test_times() -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert moment(start) == "2026-01-02 03:04 UTC"
    assert duration(start, start + timedelta(seconds=8)) == "8 s"
    assert duration(start, start + timedelta(minutes=3, seconds=12)) == "3 min 12 s"
    assert duration(start, start + timedelta(hours=1, minutes=5)) == "1 h 05 min"
    assert duration(start, None) == NOTHING


def test_pages_show_bytes_as_bytes() -> None:
    templates = (Path(service.__file__).parent / "pages" / "templates").glob("*.html")
    shown = [line for path in templates for line in re.findall(r"{{[^}]*\bsize\b[^}]*}}", path.read_text())]
    assert shown
    assert [line for line in shown if not line.endswith("| bytes }}")] == []


def test_the_documentation_names_every_route(api: TestClient) -> None:
    text = (Path(service.__file__).parent / "README.md").read_text()
    for path in api.get("/api/openapi.json").json()["paths"]:
        last = path.removeprefix("/api/v1").replace("{study_ref}", "{study}").replace("{job_id}", "{id}")
        tail = "/" + last.rpartition("/")[2] if not last.endswith("}") else last.rpartition("/")[0].rpartition("/")[2]
        assert tail in text, path
