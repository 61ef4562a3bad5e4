"""Sizes, times and shares as people read them."""

from __future__ import annotations

import pytest

from kubeyolo.formats import about_duration, about_size, counted, duration, share_of, share_text, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_600, "1.00 MB"),
        (7_220_000, "7.22 MB"),
        (99_960_000, "100 MB"),
        (1_073_741_824, "1.07 GB"),
        (40e9, "40.0 GB"),
        (2.5e12, "2500 GB"),
    ],
)
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert size_text(count) == text


def test_durations_have_one_decimal_below_ten_seconds_and_two_units_above_a_minute() -> None:
    assert [duration(seconds) for seconds in (0.44, 9.96, 59.7, 725, 12_000, None, float("nan"))] == [
        "0.4 s",
        "10 s",
        "1 min 00 s",
        "12 min 05 s",
        "3 h 20 min",
        "–",
        "–",
    ]


def test_estimates_have_no_more_digits_than_they_are_good_for() -> None:
    assert [about_duration(seconds) for seconds in (0.2, 12, 17, 43, 12 * 60, 43 * 60, 17 * 3600, 3 * 86400)] == [
        "1 s",
        "12 s",
        "17 s",
        "45 s",
        "12 min",
        "45 min",
        "17 h",
        "3 days",
    ]
    assert [about_size(count) for count in (12e6, 143e6, 1.26e9, 12e9, 123e9)] == [
        "12 MB",
        "140 MB",
        "1.3 GB",
        "12 GB",
        "120 GB",
    ]


def test_shares_are_percent_and_counts_have_their_noun() -> None:
    assert (share_text(0.125), share_text(0.125, 0), share_of(3, 4)) == ("12.5 %", "12 %", "3 of 4 (75.0 %)")
    assert (counted(1, "step"), counted(2, "step"), counted(0, "step")) == ("1 step", "2 steps", "0 steps")
