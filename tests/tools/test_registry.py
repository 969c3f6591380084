"""Which tool gets a verdict file, and how a tool becomes known."""

from __future__ import annotations

import pytest

from pipelines.errors import UsageError
from pipelines.tools import registry
from pipelines.tools.sheet.format import JsonLines, Sheet

CSV = b"ad_id,label,expert\n"


def named(path: str, data: bytes, name: str = "") -> str:
    return registry.reader_of(path, data, name).name


def test_files_go_by_name_or_by_tool() -> None:
    assert named("Anna.CSV", CSV) == "csv"
    assert named("x.ndjson", b"{}") == "jsonl"
    assert (named("Bob.XLSX", b"PK"), named("bob.csv.gz", b"\x1f\x8b")) == ("csv", "csv")
    assert named("x.jsonl", b"{}", "csv") == "csv"
    assert named("export.zip", b"PK", "doccano") == "doccano"
    with pytest.raises(UsageError, match=r"verdicts\.dat: the name does not tell .* csv, jsonl"):
        named("verdicts.dat", b"PK")
    with pytest.raises(UsageError, match="--tool paper: unknown; give one of page, csv, jsonl"):
        named("x.csv", CSV, "paper")


def test_the_review_page_marks_its_files() -> None:
    saved = b'{\n "format": "ad-scout review page verdicts",\n "format_version": 1}'
    assert named("anna.json", saved) == "page"
    assert named("anna.txt", saved) == "page"
    assert named("anna.json", b'{"ad_id": "1"}') == "jsonl"


def test_what_only_reads_is_not_exported() -> None:
    assert set(registry.names()) - set(registry.exporting()) == {"jsonl"}
    assert registry.served() == ["label-studio", "argilla"]
    assert registry.token_names() == "LABEL_STUDIO_API_KEY or ARGILLA_API_KEY"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "--pull: needs --tool; give --tool label-studio or argilla, or leave --pull out"),
        ("page", "--pull: --tool page has no server; give --tool label-studio or argilla"),
        ("paper", "--tool paper: unknown"),
    ],
)
def test_a_tool_without_a_server_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.get_served(name, "--pull")


def test_a_tool_is_known_as_long_as_the_context_lasts() -> None:
    class Other(Sheet):
        name = "other"

    with registry.registered(Other()):
        assert registry.get("other").files == Sheet.files
        assert "other" in registry.exporting()
        # It is asked last whether a file is its own.
        assert named("x.csv", CSV) == "csv"
        with (
            pytest.raises(ValueError, match="there is a tool 'other' already"),
            registry.registered(Other()),
        ):
            pass
    assert "other" not in registry.names()
    with (
        pytest.raises(ValueError, match="there is a tool 'jsonl' already"),
        registry.registered(JsonLines()),
    ):
        pass
