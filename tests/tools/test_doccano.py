"""doccano: examples and labels out, one file a member back."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import RunFailed
from pipelines.tools.doccano import format
from tests.tools import batch_of, check_blind, check_schema, lines, said, sample, understood, why

DOCCANO = format.Doccano()
SAID = [
    ("a1", "positive", "anna"),
    ("a2", "negative", "anna"),
    ("12345678901234567", "skip", "anna"),
    ("a4", "skip", "anna"),
    ("a1", "negative", "bo"),
    ("a2", "positive", "bo"),
]


def read(data: bytes) -> Any:
    return DOCCANO.read(data, "f.zip")


def zipped(**files: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # Without a time: the names of tests are made of it.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def marked(data: bytes, place: int, value: int) -> bytes:
    """Set a 16-bit field of each member, in its own header and in the directory; place from there."""
    changed = bytearray(data)
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        start = data.find(signature)
        while start >= 0:
            changed[start + shift + place : start + shift + place + 2] = value.to_bytes(2, "little")
            start = data.find(signature, start + 1)
    return bytes(changed)


def both() -> dict[str, bytes]:
    return {f"{name}.jsonl": sample(f"doccano/{name}.jsonl") for name in ("bo", "anna")}


def test_the_export_is_the_recorded_one() -> None:
    files = DOCCANO.export(batch_of())
    assert sorted(files) == ["examples.jsonl", "guidelines.md", "labels.json", "setup.md"]
    for name in ("examples.jsonl", "labels.json", "guidelines.md"):
        assert files[name] == sample(f"doccano/{name}"), name
    for example in lines(files["examples.jsonl"]):
        check_schema("doccano", "import", example)
    check_schema("doccano", "labels", json.loads(files["labels.json"]))
    check_blind(files)


def test_what_the_model_thinks_is_metadata_never_a_label() -> None:
    examples = lines(DOCCANO.export(batch_of(shown=True))["examples.jsonl"])
    for example in examples:
        check_schema("doccano", "import", example)
    found = [(e["side"], e["model_label"], e["model_score"]) for e in examples[:2]]
    assert found == [("left", "bait", 0.8137), ("right", "fine", 0.6629)]


def test_the_word_for_skips_is_a_label_of_its_own() -> None:
    labels = json.loads(DOCCANO.export(batch_of(labels=("unsure", "SKIP")))["labels.json"])
    assert [label["text"] for label in labels] == ["unsure", "SKIP", "n/a"]


def test_recorded_answers() -> None:
    files = both()
    for name in files:
        for record in lines(files[name]):
            check_schema("doccano", "export", record)
    resolved = understood(read(zipped(**files)))
    # By member, not by the zip's order: the same members give the same rows.
    assert said(resolved) == SAID
    assert why(resolved) == [("bo.jsonl, line 3", "half_pair")]
    assert resolved.unanswered == 1
    assert resolved.verdicts[0].comment == "no such trick"
    assert resolved.verdicts[0].position == "anna.jsonl, line 1"


def test_files_in_folders_and_what_a_finder_adds() -> None:
    files = {f"project/{name}": data for name, data in both().items()}
    extra = {"__MACOSX/project/._anna.jsonl": b"\0\5", "project/new.jsonl": b"\n"}
    assert said(understood(read(zipped(**files, **extra)))) == SAID


def test_a_single_file_names_nobody() -> None:
    data = sample("doccano/anna.jsonl")
    assert {r for _, r in why(understood(DOCCANO.read(data, "anna.jsonl")))} == {"blank_expert"}
    named = understood(DOCCANO.read(data, "all.jsonl"), expert="anna")
    assert said(named) == SAID[:4]
    as_list = json.dumps(lines(data)).encode()
    assert said(understood(DOCCANO.read(as_list, "all.json"), expert="anna")) == SAID[:4]


@pytest.mark.parametrize("field", ["user", "annotation_approver"])
def test_old_exports_name_people_in_a_field(field: str) -> None:
    rows = [{**record, field: "Anna"} for record in lines(sample("doccano/anna.jsonl"))]
    # They call the text data, too.
    for row in rows:
        row["data"] = row.pop("text")
    data = "\n".join(map(json.dumps, rows)).encode()
    assert said(understood(DOCCANO.read(data, "all.jsonl"))) == SAID[:4]


def test_text_is_checked_under_both_names() -> None:
    row = lines(sample("doccano/anna.jsonl"))[0]
    for name in ("text", "data"):
        other = {**row, "user": "anna", "pair_id": "pair_0000000000000000"}
        del other["text"]
        other[name] = "Something else"
        assert [r for _, r in why(understood(read(json.dumps(other).encode())))] == [
            "text_mismatch"
        ]


def test_two_labels_for_one_ad_are_an_unknown_label() -> None:
    rows = lines(sample("doccano/anna.jsonl"))
    rows[0]["label"] = ["bait", "fine"]
    data = "\n".join(map(json.dumps, rows)).encode()
    resolved = understood(read(zipped(**{"anna.jsonl": data})))
    assert why(resolved) == [("anna.jsonl, line 1", "unknown_label")]
    assert said(resolved) == SAID[1:4]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"side": "middle"}, "side must be left or right, found 'middle'"),
        ({"pair_id": None}, "holds no item_id"),
        ({"label": [["bait"]]}, "'label' must be a list of labels"),
        ({"label": 1}, "'label' must be a list of labels"),
        ({"Comments": [{"text": "x"}]}, "'Comments' must be text, found dict"),
        ({"ad_id": True}, "'ad_id' must be text, found bool"),
    ],
)
def test_records_of_another_kind_are_dead_letters(change: dict, detail: str) -> None:
    rows = lines(sample("doccano/anna.jsonl"))
    rows[0] |= change
    data = "\n".join(map(json.dumps, rows)).encode()
    resolved = understood(read(zipped(**{"anna.jsonl": data})))
    assert why(resolved)[0] == ("anna.jsonl, line 1", "not_readable_row")
    assert detail in resolved.rejected[0].detail
    assert said(resolved) == SAID[2:4]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(), "the zip holds nothing, no .jsonl files; export the data set"),
        (zipped(**{"anna.csv": b"id,text,label"}), "the zip holds 'anna.csv', no .jsonl files"),
        (
            zipped(**{"a/anna.jsonl": b"{}", "b/anna.jsonl": b"{}"}),
            "two files of the zip have one name",
        ),
        (zipped(**{"a.jsonl": b"{}"})[:-30], "the zip cannot be read"),
        (b"PK\x03\x04rest", "the zip cannot be read"),
        (
            marked(zipped(**{"a.jsonl": b"{}"}), 6, 1),
            r"the zip cannot be read \(File .*a\.jsonl.* is encrypted, password required",
        ),
        (
            marked(zipped(**{"a.jsonl": b"{}"}), 8, 97),
            r"the zip cannot be read \(That compression method is not supported\)",
        ),
        (zipped(**{"a.jsonl": b'{"text": "x"}'}), "found the fields text; expected id, text"),
        (sample("doccano/examples.jsonl"), "found the fields text, item_id.*; expected id"),
        (b"id,text,label\n", "holds no JSON object; expected id"),
        (b"", "is empty"),
    ],
)
def test_files_that_are_no_export_are_named(data: bytes, message: str) -> None:
    with pytest.raises(RunFailed, match=f"f.zip: .*{message}"):
        list(read(data))


@settings(max_examples=300)
@given(
    st.sampled_from(
        [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    ),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 10_000),
)
def test_a_damaged_zip_gives_rows_or_one_clear_error(
    compression: int, changes: list[tuple[int, int]], end: int
) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name in ("\u00e4nn\u00e4.jsonl", "bo.jsonl"):
            archive.writestr(name, b'{"id": 1, "text": "x", "label": ["bait"]}\n' * 5)
    data = bytearray(sink.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(RunFailed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(read(bytes(data[: max(4, end)])))


def test_a_zip_that_unpacks_to_far_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format, "MAX_FILE_BYTES", 1000)
    with pytest.raises(RunFailed, match="2,000 bytes unpacked, at most 1,000; import the files"):
        list(read(zipped(**{"a.jsonl": b" " * 2000})))
