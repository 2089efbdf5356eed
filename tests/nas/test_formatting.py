from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.formatting import (
    circumstances,
    format_count,
    format_duration,
    format_metric,
    format_moment,
    format_number,
    format_short,
    format_value,
)
from nas.metrics import METRICS, Measurement

UNITS = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12, "12"), (999, "999"), (999.6, "1.00 k"), (1234, "1.23 k"), (2_000_000, "2.00 M"),
     (4.292e6, "4.29 M"), (999_960, "1.00 M"), (123_400_000, "123 M"), (3e12, "3.00 T")],
)  # fmt: skip
def test_counts_have_three_digits_and_a_prefix(value: float, text: str) -> None:
    assert format_count(value) == text


@given(st.floats(1, 9e14), st.integers(3, 6))
def test_a_count_reads_back_to_within_its_digits(value: float, digits: int) -> None:
    number, _, unit = format_count(value, digits).partition(" ")
    assert float(number) * UNITS[unit] == pytest.approx(value, rel=0.6 * 10 ** (1 - min(digits, 4)))


@given(st.integers(0, 10**6))
def test_durations_read_back(seconds: int) -> None:
    words = format_duration(seconds).split()
    units = {"s": 1, "min": 60, "h": 3600}
    read = sum(int(count) * units[unit] for count, unit in zip(words[::2], words[1::2], strict=True))
    assert seconds - read in range(60 if seconds >= 3600 else 1)


def test_figures_in_full_short_and_in_sentences() -> None:
    assert format_value("top1", 0.93889) == format_short("top1", 0.93889) == "93.89"
    assert format_value("macs", 3186304) == "3,186,304"
    assert format_short("macs", 3186304) == "3.186 M"
    assert format_value("loss", 0.123456) == format_short("loss", 0.123456) == "0.1235"
    assert format_value("latency_ms", 12.34567) == format_short("latency_ms", 12.34567) == "12.346"
    assert format_metric("macs", 3186304) == "3.186 M macs"
    assert format_metric("top1", 0.93889) == "top-1 93.89 %"


def test_numbers_agree_with_their_nouns() -> None:
    assert [format_number(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    assert format_number(2, "search", "searches") == "2 searches"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_written(metric: str) -> None:
    assert format_value(metric, 0.5)
    assert format_short(metric, 0.5)
    assert format_metric(metric, 0.5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text) -> None:
    assert format_duration(seconds) == text


def test_a_moment_is_told_with_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 3, 1, 23, 5, tzinfo=UTC)
    assert format_moment(moment, UTC) == "2026-03-01 23:05 UTC"
    assert format_moment(moment, timezone(timedelta(hours=2), "EET")) == "2026-03-02 01:05 EET"
    try:
        with monkeypatch.context() as changed:
            changed.setenv("TZ", "XYZ-05:30")
            time.tzset()
            assert format_moment(moment) == "2026-03-02 04:35 XYZ"
    finally:
        time.tzset()


def test_moments_are_written_in_one_place() -> None:
    root = Path(__file__).parents[2]
    allowed = {"formatting.py", "upgrade.py"}  # the latter names a backup file
    files = [file for package in ("nas", "service") for file in (root / package).rglob("*.py")]
    assert {file.name for file in files if "strftime" in file.read_text()} == allowed


def test_what_makes_a_latency_uncertain_is_shown() -> None:
    figures = {"n": 9, "interval": [1.0, 2.0], "p90": 2.0}
    sure = circumstances(Measurement("latency_ms", 1.5, figures, "here"))
    assert sure == "median of 9, 95 % interval 1.000 to 2.000, p90 2.000; here"
    unsure = circumstances(Measurement("latency_ms", 1.5, {**figures, "faults": ["busy", "hot"]}, "here"))
    assert unsure == f"{sure}; uncertain: busy; uncertain: hot"
