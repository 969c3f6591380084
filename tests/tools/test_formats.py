"""Which reader gets a verdict file."""

from __future__ import annotations

import pytest

from pipelines.errors import UsageError
from pipelines.tools.formats import EXPORTERS, READERS, detect_format

CSV = b"ad_id,label,expert\n"


def test_formats_go_by_name_or_by_tool() -> None:
    assert detect_format("Anna.CSV", CSV) == "csv"
    assert detect_format("x.ndjson", b"{}") == "jsonl"
    assert detect_format("x.jsonl", b"{}", "csv") == "csv"
    assert detect_format("export.zip", b"PK", "doccano") == "doccano"
    with pytest.raises(UsageError, match=r"verdicts\.xlsx: the name does not tell .* csv, jsonl"):
        detect_format("verdicts.xlsx", b"PK")
    with pytest.raises(UsageError, match="--tool paper: unknown; give one of csv, jsonl"):
        detect_format("x.csv", CSV, "paper")


def test_the_review_page_marks_its_files() -> None:
    saved = b'{\n "format": "ad-scout review page verdicts",\n "format_version": 1}'
    assert detect_format("anna.json", saved) == "page"
    assert detect_format("anna.txt", saved) == "page"
    assert detect_format("anna.json", b'{"ad_id": "1"}') == "jsonl"


def test_what_can_be_exported_can_be_imported() -> None:
    assert set(EXPORTERS) | {"jsonl"} == set(READERS)
