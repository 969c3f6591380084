"""When something was said: the many ways in which files write a moment, as one."""

from __future__ import annotations

import datetime
import email.utils
import math
import re
import unicodedata

from pipelines.text import is_missing
from pipelines.verdicts.spreadsheet import unprotected

# What spreadsheets call the first days of 2000 and of 2100.
_SERIALS = (36_526, 73_051)
_YEAR_FIRST = re.compile(r"^(\d{4})[-/.](\d\d?)[-/.](\d\d?)(?!\d)(.*)")
# Mails' own way (RFC 5322), and what JavaScript's Date says of itself, which email.utils misreads.
_MAIL = re.compile(
    r"(?:[A-Za-z]{3}, )?\d\d? [A-Za-z]{3} \d{4} \d\d:\d\d(?::\d\d)? (?:[+-]\d{4}|GMT|UT|UTC|Z)"
)
_JAVASCRIPT = re.compile(
    r"^[A-Za-z]{3} ([A-Za-z]{3}) (\d\d?) (\d{4} \d\d:\d\d:\d\d) GMT([+-]\d{4})(?: \(.*\))?$"
)


def parse_time(text: str) -> str:
    """Return a time as UTC in ISO 8601 to the second; "" for what is missing.

    Args:
        text: ISO 8601 or as mails have it (RFC 5322), taken for UTC where it names no offset; Unix
            seconds, or milliseconds, microseconds or nanoseconds; or the days since 1899-12-30 by which
            spreadsheets count.

    Raises:
        ValueError: it is none of these, or not between 2000 and 2100.
    """
    text = unprotected(unicodedata.normalize("NFKC", text).strip())
    if is_missing(text):
        return ""
    moment = _moment(text)
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        moment = moment.astimezone(datetime.UTC) if moment else None
    except OverflowError:
        moment = None
    if moment is None or not 2000 <= moment.year < 2100:
        raise ValueError(
            f"{text[:40]!r} is no time between 2000 and 2100; write 2026-11-22T14:05:00Z, or Unix "
            "seconds"
        )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str) -> datetime.datetime | None:
    """Return a time as it is written, or None."""
    try:
        number = float(re.sub(r"^(\d+),(\d+)$", r"\1.\2", text))
    except ValueError:
        number = math.nan
    try:
        for unit in (1, 1e3, 1e6, 1e9):
            # From 1973 to 2100: no other unit gives a time in these years.
            if 1e8 * unit <= number < 4.2e9 * unit:
                return datetime.datetime.fromtimestamp(number / unit, datetime.UTC)
        if _SERIALS[0] <= number < _SERIALS[1]:
            # To the second: the fraction of a day that a spreadsheet writes is not exact.
            seconds = round(number * 86_400)
            return datetime.datetime(1899, 12, 30) + datetime.timedelta(seconds=seconds)
        mail = _JAVASCRIPT.sub(r"\2 \1 \3 \4", text)
        if _MAIL.fullmatch(mail):
            return email.utils.parsedate_to_datetime(mail)
        # The year first is the only order of a date's numbers that is the same everywhere.
        iso = _YEAR_FIRST.sub(lambda found: "{}-{:0>2}-{:0>2}{}".format(*found.groups("")), text)
        iso = re.sub(r"^(\S+)[T ](\d:)", r"\1T0\2", iso)
        # As data frames print times: " UTC", and a blank before an offset.
        iso = re.sub(r" (?:UTC|GMT|Z)$", "Z", re.sub(r" (?=[+-]\d\d:?\d\d$)", "", iso))
        return datetime.datetime.fromisoformat(iso)
    except (ValueError, OverflowError):
        return None
