"""The review page as bytes, and the verdicts that it saves. The browser's part: tests/real_tools/browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.contracts import Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.text import content_key
from pipelines.tools.batch import Batch
from pipelines.tools.page import format
from pipelines.verdicts.rows import MAX_COMMENT_CHARS, MAX_EXPERT_CHARS, RawVerdict
from tests.real_tools.browser.pages import batch_of, imported
from tests.tools import FIELDS

PAGE = format.ReviewPage()
PLAIN = batch_of(["loud", "quiet", "secret", "terms"])
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "{{script}} {{data}} {{csp}}",
    "]]>&lt;/script&gt;\u2028\u2029",
    "\\u003c/script\\u003e \\",
    "\x00\x1b[0m\ud800\uffff",
    "\u202etxt.exe",
    "'\"`${alert(1)}",
)
# Whatever a person can type or a corpus can hold, half a surrogate pair included.
ANYTHING = st.one_of(st.text(max_size=60), st.sampled_from(HOSTILE))


class Parts(HTMLParser):
    """A page's tags with their attributes, and the text of each script and style."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.inside: dict[str, str] = {}
        self._open = ""
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))
        self._open = dict(attrs).get("type") or tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open] = self.inside.get(self._open, "") + data

    def data(self) -> dict[str, Any]:
        return json.loads(self.inside["application/json"])


def only_page(batch: Batch) -> Parts:
    [(name, data)] = PAGE.export(batch).items()
    assert name == "review.html"
    return Parts(data)


def saved(batch: Batch, answers: Sequence[str] = (), **changes: Any) -> dict[str, Any]:
    """Return a verdict file's content as the page writes it: an answer an ad, in order."""
    rows = [
        {
            "item_id": item.item_id,
            "side": side,
            "ad_id": ad.id,
            "answer": "",
            "time": "2026-11-22T14:05:00.250Z",
            "comment": "",
            "key": content_key(ad.text),
            "text": ad.text,
        }
        for item in batch.items
        for side, ad in item.sides()
    ]
    for row, answer in zip(rows, answers, strict=False):
        row["answer"] = answer
    return {
        "format": format.FORMAT,
        "format_version": format.FORMAT_VERSION,
        "task": batch.task,
        "labels": {"positive": batch.positive, "negative": batch.negative},
        "expert": "Ann",
        "rows": rows,
        **changes,
    }


def as_file(content: Any) -> bytes:
    return json.dumps(content).encode()


def read(content: Any) -> list[RawVerdict | Rejected]:
    return list(PAGE.read(as_file(content), "v.json"))


# --- the page ---------------------------------------------------------------------------------


def test_the_same_batch_is_the_same_page() -> None:
    assert PAGE.export(PLAIN) == PAGE.export(batch_of(["loud", "quiet", "secret", "terms"]))
    other = batch_of(["loud", "quiet", "secret", "term"])
    assert only_page(PLAIN).data()["batch"] != only_page(other).data()["batch"]


def test_a_page_holds_what_the_expert_needs_and_nothing_of_the_model() -> None:
    data = only_page(PLAIN).data()
    assert data["labels"] == {"positive": "bait", "negative": "fine"}
    assert data["policy"] == PLAIN.policy
    assert data["items"][1]["ads"][0] == {
        "side": "left",
        "id": "ad-2",
        "key": content_key("secret"),
        "text": "secret",
    }
    assert "fake" not in PAGE.export(PLAIN)["review.html"].decode()


def test_predictions_are_shown_where_the_batch_has_them() -> None:
    left, right = only_page(batch_of(["a", "b"], predicted=True)).data()["items"][0]["ads"]
    assert left["model"] == {"label": "bait", "probability": 0.8137}
    # The probability of the label that is shown: the model gives 0.3371 to the right ad's positive.
    assert right["model"] == {"label": "fine", "probability": 0.6629}


def test_many_pairs_are_spread_evenly_in_their_order() -> None:
    batch = batch_of([str(i) for i in range(14)])
    pages = PAGE.export(batch, items_per_page=3)
    assert list(pages) == ["review-1-of-3.html", "review-2-of-3.html", "review-3-of-3.html"]
    found = [Parts(data).data() for data in pages.values()]
    assert [len(data["items"]) for data in found] == [2, 2, 3]
    ids = [item["id"] for data in found for item in data["items"]]
    assert ids == [item.item_id for item in batch.items]
    assert [(data["part"], data["parts"]) for data in found] == [(1, 3), (2, 3), (3, 3)]


def test_single_ads_and_fields_are_told_as_such() -> None:
    batch = batch_of(["a", "b", "c"], sizes=(1, 2), fields=FIELDS)
    single, pair = only_page(batch).data()["items"]
    assert [ad["side"] for ad in (*single["ads"], *pair["ads"])] == ["", "left", "right"]
    assert single["ads"][0]["fields"] == [list(field) for field in FIELDS]
    assert single["ads"][0]["key"] == content_key("a")
    assert "fields" not in only_page(PLAIN).data()["items"][0]["ads"][0]


def test_a_single_ad_comes_back() -> None:
    batch = batch_of(["a", "b", "c"], sizes=(1, 2))
    resolved = imported(as_file(saved(batch, ["negative", "positive", "skip"])), batch)
    assert resolved.rejected == ()
    assert [v.label for v in resolved.verdicts] == ["negative", "positive", "skip"]


def test_answers_of_version_1_are_read() -> None:
    content = saved(PLAIN, ["positive", "negative", "unsure", "skip"], format_version=1)
    for row in content["rows"]:
        row["pair_id"] = row.pop("item_id")
    assert len(imported(as_file(content), PLAIN).verdicts) == 4


def test_a_batch_without_pairs_makes_no_page() -> None:
    with pytest.raises(UsageError, match="round 1 has no pairs"):
        PAGE.export(batch_of([]))


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    parts = only_page(PLAIN)
    [csp] = [
        dict(attrs)["content"]
        for tag, attrs in parts.tags
        if dict(attrs).get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(" ", 1) for rule in str(csp).split("; "))

    def source(kind: str) -> str:
        hashed = hashlib.sha256(parts.inside[kind].encode()).digest()
        return f"'sha256-{base64.b64encode(hashed).decode()}'"

    assert rules.pop("script-src") == source("script")
    assert rules.pop("style-src") == source("style")
    assert rules == {
        "default-src": "'none'",
        "base-uri": "'none'",
        # These two do not fall back to default-src.
        "form-action": "'none'",
        "trusted-types": "'none'",
        "require-trusted-types-for": "'script'",
    }


def test_the_page_loads_nothing_and_writes_text_only() -> None:
    parts = only_page(PLAIN)
    assert all("src" not in dict(attrs) for _, attrs in parts.tags)
    assert {dict(attrs).get("href", "#main") for _, attrs in parts.tags} == {"#main"}
    assert not any(name.startswith("on") for _, attrs in parts.tags for name, _ in attrs)
    for door in (r"innerHTML", r"outerHTML", r"insertAdjacent", r"document\.write", r"\beval\b",
                 r"new Function", r"https?:", r"\bfetch\b", r"XMLHttp", r"import\b", r"url\("):  # fmt: skip
        assert not re.search(door, parts.inside["script"] + parts.inside["style"]), door


def test_limits_are_the_importers() -> None:
    script = only_page(PLAIN).inside["script"]
    assert f"MAX_NAME = {MAX_EXPERT_CHARS};" in script
    assert f"MAX_COMMENT = {MAX_COMMENT_CHARS};" in script


@given(st.lists(ANYTHING, min_size=2, max_size=2), ANYTHING, ANYTHING)
@example([HOSTILE[0], HOSTILE[1]], HOSTILE[0], HOSTILE[1])
def test_no_text_changes_the_pages_markup(texts: list[str], policy: str, label: str) -> None:
    batch = batch_of(texts, policy=policy, positive=label, negative=f"not {label}")
    [data] = PAGE.export(batch).values()
    plain = only_page(batch_of(["a", "b"]))
    found = Parts(data)
    without_hashes = [tag for tag in found.tags if tag[0] != "meta"]
    assert without_hashes == [tag for tag in plain.tags if tag[0] != "meta"]
    assert found.inside["script"] == plain.inside["script"]
    shown = found.data()
    assert [ad["text"] for ad in shown["items"][0]["ads"]] == texts
    assert (shown["policy"], shown["labels"]["positive"]) == (policy, label)
    assert data.isascii()


# --- its verdicts -----------------------------------------------------------------------------


def test_answers_come_back() -> None:
    content = saved(PLAIN, ["positive", "negative", "unsure", "skip"])
    content["rows"][0]["comment"] = "why"
    resolved = imported(as_file(content), PLAIN)
    assert resolved.rejected == ()
    assert [verdict.label for verdict in resolved.verdicts] == [
        "positive",
        "negative",
        "skip",
        "skip",
    ]
    first = resolved.verdicts[0]
    assert (first.ad_id, first.item_id, first.expert) == ("ad-0", PLAIN.items[0].item_id, "ann")
    assert (first.time, first.comment) == ("2026-11-22T14:05:00Z", "why")
    assert (first.source, first.position) == ("verdicts.json", "row 1")


def test_open_pairs_are_unanswered_and_half_a_pair_does_not_count() -> None:
    resolved = imported(as_file(saved(PLAIN, ["positive", "", "", ""])), PLAIN)
    assert resolved.verdicts == ()
    assert resolved.unanswered == 3
    assert [item.reason for item in resolved.rejected] == ["half_pair"]


@pytest.mark.parametrize(
    ("positive", "negative"), [("skip", "unsure"), ("Unsure", "fine"), ("negative", "positive")]
)
def test_labels_with_confusing_names_mean_themselves(positive: str, negative: str) -> None:
    batch = batch_of(["a", "b", "c", "d"], positive=positive, negative=negative)
    resolved = imported(as_file(saved(batch, ["positive", "negative", "skip", "unsure"])), batch)
    labels = [verdict.label for verdict in resolved.verdicts]
    assert labels == ["positive", "negative", "skip", "skip"]
    unsure = only_page(batch).data()["unsure"]
    assert unsure.casefold() not in (positive.casefold(), negative.casefold())


def test_the_verdicts_of_another_batch_are_noticed() -> None:
    other = batch_of(["loud", "quiet", "another", "terms"])
    resolved = imported(as_file(saved(other, ["positive"] * 4)), PLAIN)
    assert [item.reason for item in resolved.rejected] == ["text_mismatch"]
    assert [verdict.ad_id for verdict in resolved.verdicts] == ["ad-0", "ad-1", "ad-3"]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"side": "middle"}, "not_readable_row", "side must be left or right, found 'middle'"),
        ({"answer": "bait"}, "unknown_label", "found 'bait'"),
        ({"answer": None}, "not_readable_row", "without text: answer"),
        ({"time": 5, "ad_id": ["x"]}, "not_readable_row", "without text: ad_id, time"),
        ({"text": "edited"}, "text_mismatch", "the file was edited after it was saved"),
        ({"key": "\ud800"}, "text_mismatch", "does not belong to its key"),
    ],
)
def test_a_bad_row_is_a_dead_letter(change: Mapping[str, Any], reason: str, detail: str) -> None:
    content = saved(PLAIN, ["positive"] * 4)
    content["rows"][2].update(change)
    found = read(content)
    assert [isinstance(row, Rejected) for row in found] == [False, False, True, False]
    rejected = found[2]
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.position) == (reason, "row 3")
    assert detail in rejected.detail
    rejected.detail.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\xff\xfe\xff", "is not UTF-16"),
        (b"<!doctype html><title>x</title>", "is a web page, not the verdicts of one"),
        (b"pair_id,label\np,fine\n", "is not JSON, or not all of it is there"),
        (as_file(saved(PLAIN))[:-20], "not all of it is there"),
        (b"[" * 100_000, "not all of it is there"),
        (b"[1]", "found a list"),
        (b'{"id": 1}', "found a dict"),
        (b'{"format": "other\\ud800"}', "found format"),
        (as_file(saved(PLAIN, format_version=3)), "format version 3, this scout reads 1 to 2"),
        (as_file(saved(PLAIN, labels={"positive": "a"})), "labels must name positive and negative"),
        (as_file(saved(PLAIN, labels=["positive", "negative"])), "labels must name"),
        (as_file(saved(PLAIN, expert=None)), "expert must be text"),
        (as_file(saved(PLAIN, rows={})), "rows must be a list"),
    ],
)
def test_other_files_are_refused_with_a_cure(data: bytes, message: str) -> None:
    with pytest.raises(RunFailed) as caught:
        list(PAGE.read(data, "v.json"))
    assert message in caught.value.message
    assert caught.value.message.startswith("v.json: ")
    caught.value.message.encode()


def test_the_page_itself_is_told_from_its_verdicts() -> None:
    with pytest.raises(RunFailed, match="open it and import the file that the review page saves"):
        list(PAGE.read(PAGE.export(PLAIN)["review.html"], "review.html"))


@given(
    st.lists(ANYTHING, min_size=4, max_size=4, unique_by=content_key),
    st.lists(st.sampled_from(["positive", "negative", "unsure", "skip"]), min_size=4, max_size=4),
    ANYTHING,
    ANYTHING,
)
def test_nothing_that_ads_or_experts_say_breaks_the_import(
    texts: list[str], answers: list[str], name: str, comment: str
) -> None:
    batch = batch_of(texts)
    content = saved(batch, answers, expert=f"Ann {name}")
    for row in content["rows"]:
        row["comment"] = comment
    resolved = imported(as_file(content), batch)
    assert resolved.rejected == ()
    labels = ["skip" if answer == "unsure" else answer for answer in answers]
    assert [verdict.label for verdict in resolved.verdicts] == labels
    assert [verdict.key for verdict in resolved.verdicts] == [content_key(text) for text in texts]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.data())
def test_any_damage_is_a_dead_letter_or_one_clear_failure(data: st.DataObject) -> None:
    content = saved(PLAIN, ["positive"] * 4)
    place: Any = data.draw(st.sampled_from([content, *content["rows"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    failure = ""
    try:
        rows = read(content)
    except RunFailed as error:
        failure = error.message
    if failure:
        assert failure.startswith("v.json: ")
        return
    assert len(rows) == len(content["rows"])
    for row in rows:
        row.excerpt.encode() if isinstance(row, Rejected) else row.refuse("x", "y")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RunFailed):
        list(PAGE.read(data, "v.json"))
