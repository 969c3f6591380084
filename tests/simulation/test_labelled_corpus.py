"""Labelled corpora: what is read, what is refused, and what may be asked about."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import Labels
from pipelines.errors import UsageError
from pipelines.simulation.labelled_corpus import Corpus, Fields, divide, read_labelled
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import AdField
from pipelines.sources.records import Place, to_ad
from pipelines.text import content_id, content_key
from tests import helpers

NAMES = Labels(positive="bait", negative="fine")
GOOD = [
    {"id": "a", "text": "won a miracle", "label": "bait"},
    {"id": "b", "text": "library terms", "label": "fine"},
]


def read(folder: Path, rows: list[Any], fields: Fields | None = None) -> Corpus:
    path = helpers.write_jsonl(folder / "ads.jsonl", rows)
    return read_labelled((str(path),), fields or Fields(), NAMES)


# --- Reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yes", "no"),
    [("bait", "fine"), ("positive", "negative"), (1, 0), (True, False)],
)
def test_labels_by_name_by_word_and_by_number(yes: Any, no: Any, tmp_path: Path) -> None:
    found = read(tmp_path, [{**GOOD[0], "label": yes}, {**GOOD[1], "label": no}])
    assert dict(zip(found.ids, found.gold.tolist(), strict=True)) == {"a": True, "b": False}
    assert found.gold.dtype == bool and found.ratings is None
    assert list(found.keys) == sorted(found.keys)
    assert found.keys == tuple(content_key(text) for text in found.texts)


def test_copies_count_once_and_ids_may_be_missing(tmp_path: Path) -> None:
    rows = [
        *GOOD,
        {"id": "c", "text": "  WON a  miracle", "label": "bait"},
        {"text": "no id", "label": "fine"},
        {"id": 0, "text": "a number", "label": "fine"},
    ]
    found = read(tmp_path, rows)
    assert set(found.ids) == {"a", "b", "0", content_id(content_key("no id"))}
    assert dict(zip(found.ids, found.texts, strict=True))["a"] == "won a miracle", "the first one"


def test_what_no_model_can_read_is_left_out_and_counted(tmp_path: Path) -> None:
    unread = ["[SEP]", "\ufffd\ufffd", "\u200b [CLS]"]
    rows = [*GOOD, *({"id": f"w{i}", "text": t, "label": "fine"} for i, t in enumerate(unread))]
    found = read(tmp_path, rows)
    assert (set(found.ids), found.wordless) == ({"a", "b"}, 3)


def test_several_files_blank_lines_and_gzip(tmp_path: Path) -> None:
    helpers.write_jsonl(tmp_path / "1.jsonl", GOOD[:1])
    (tmp_path / "2.jsonl.gz").write_bytes(
        gzip.compress(b"\n\n" + json.dumps(GOOD[1]).encode() + b"\r\n\n")
    )
    assert set(read_labelled((f"{tmp_path}/*",), Fields(), NAMES).ids) == {"a", "b"}
    both = (f"{tmp_path}/1.jsonl", f"{tmp_path}/2.jsonl.gz")
    assert set(read_labelled(both, Fields(), NAMES).ids) == {"a", "b"}


def test_recorded_ratings_and_their_majority(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "text": "one", "who": {"x": "bait", "y": 1, "z": "fine"}},
        {"id": "b", "text": "two", "who": {"y": "bait", "x": "fine"}},
        {"id": "c", "text": "three", "who": {"z": "fine"}, "label": "bait"},
    ]
    found = read(tmp_path, rows, Fields(ratings="who"))
    assert found.ratings is not None and found.ratings.dtype == np.int8
    by_id = dict(zip(found.ids, found.ratings.tolist(), strict=True))
    assert by_id == {"a": [1, 1, 0], "b": [0, 1, -1], "c": [-1, -1, 0]}
    gold = dict(zip(found.ids, found.gold.tolist(), strict=True))
    # A tie is no majority; a label of its own comes before what people said.
    assert gold == {"a": True, "b": False, "c": True}


def test_labels_in_a_file_of_their_own(tmp_path: Path) -> None:
    labels = helpers.write_jsonl(
        tmp_path / "labels.jsonl",
        [{"id": 0, "label": "bait"}, {"id": "b", "label": "fine"}, {"id": "z", "label": "bait"}],
    )
    rows = [{"id": 0, "text": "won a miracle"}, {"id": "b", "text": "library terms"}]
    found = read(tmp_path, rows, Fields(file=str(labels)))
    assert dict(zip(found.ids, found.gold.tolist(), strict=True)) == {"0": True, "b": False}
    with pytest.raises(UsageError, match=r"line 3: not a labelled ad: no label for id 'c' in .*la"):
        read(tmp_path, [*rows, {"id": "c", "text": "more"}], Fields(file=str(labels)))
    with pytest.raises(UsageError, match=r"--label_file .*none\.jsonl: no such file"):
        read(tmp_path, rows, Fields(file=str(tmp_path / "none.jsonl")))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x", "label": "perhaps"}, "label 'perhaps'; use 'bait' or 'fine'"),
        ({"text": "x", "label": 2}, "label 2; use 'bait' or 'fine'"),
        ({"text": "x", "label": None}, "label None; use"),
        ({"text": "x"}, "no field 'label'"),
        ({"label": "bait"}, "no field 'text'"),
        ({"text": "", "label": "bait"}, "text is empty or no string"),
        ({"text": " \u200b ", "label": "bait"}, "text is empty or no string"),
        ({"text": ["x"], "label": "bait"}, "text is empty or no string"),
        ({"text": "half \ud83d a smile", "label": "bait"}, "surrogates not allowed"),
        (["x"], "a JSON object is expected, found list"),
        ({"text": "WON A MIRACLE", "label": "fine"}, "the text of 'a' again, with another label"),
        ({"id": "a", "text": "x", "label": "fine"}, "the id 'a' again, with another text"),
    ],
)
def test_what_is_no_labelled_ad_is_named(row: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ads.jsonl"
    lines = [json.dumps(item) for item in (*GOOD, row)]
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError) as caught:
        read_labelled((str(path),), Fields(), NAMES)
    assert str(caught.value).startswith(f"{path}: line 3: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("who", "message"),
    [
        ({}, "who is empty"),
        ({"x": "skip"}, "label 'skip'"),
        (["bait"], "no attribute 'items'"),
        (None, "no attribute 'items'"),
    ],
)
def test_ratings_that_are_none(who: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"line 1: not a labelled ad: .*{message}"):
        read(tmp_path, [{"text": "one", "who": who}], Fields(ratings="who"))
    with pytest.raises(UsageError, match="line 1: not a labelled ad: no field 'who'"):
        read(tmp_path, [{"text": "one", "label": "bait"}], Fields(ratings="who"))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--corpus .*none\*: no file matches"):
        read_labelled((f"{tmp_path}/none*",), Fields(), NAMES)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD[0]).encode())[:-9])
    broken = bytearray(gzip.compress(json.dumps(GOOD[0]).encode()))
    broken[10] ^= 0xFF
    (tmp_path / "broken.jsonl.gz").write_bytes(broken)
    with pytest.raises(UsageError, match=r"broken\.jsonl\.gz: not a whole gzip file"):
        read_labelled((str(tmp_path / "broken.jsonl.gz"),), Fields(), NAMES)
    with pytest.raises(UsageError, match=r"cut\.jsonl\.gz: not a whole gzip file"):
        read_labelled((f"{tmp_path}/cut.jsonl.gz",), Fields(), NAMES)
    (tmp_path / "no.jsonl").write_bytes(b"{no\n")
    with pytest.raises(UsageError, match=r"no\.jsonl: line 1: not JSON"):
        read_labelled((f"{tmp_path}/no.jsonl",), Fields(), NAMES)


def test_ads_of_several_fields_are_read_as_mine_reads_them(tmp_path: Path) -> None:
    reading = ReadOptions(fields=(AdField("ad.head", "Head"), AdField("ad.cta", "CTA")))
    rows: list[Any] = [
        {"id": "a", "ad": {"head": "won a\n miracle", "cta": ["Go", "Now"]}, "label": "bait"},
        {"id": "b", "ad": {"head": "library terms"}, "label": "fine"},
    ]
    path = helpers.write_jsonl(tmp_path / "ads.jsonl", rows)
    found = read_labelled((str(path),), Fields(), NAMES, reading)
    place = Place("f", "line 1", "")
    for i, id in enumerate(found.ids):
        [row] = [row for row in rows if row["id"] == id]
        # What the pool holds of an ad is the same ad again, without its label.
        assert to_ad(found.record(i), reading, place) == to_ad(row, reading, place)
        assert "label" not in found.record(i)
        assert found.keys[i] == content_key(found.texts[i])
    assert set(found.texts) == {"Head: won a miracle\nCTA: Go Now", "Head: library terms"}
    path = helpers.write_jsonl(tmp_path / "ads.jsonl", [*rows, {"id": "c", "label": "bait"}])
    with pytest.raises(
        UsageError, match=r"line 3: not a labelled ad: nothing to read in 'ad\.head'"
    ):
        read_labelled((str(path),), Fields(), NAMES, reading)


def test_a_plain_ad_is_id_and_text(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    expected = [{"id": row["id"], "text": row["text"]} for row in GOOD]
    assert sorted([found.record(0), found.record(1)], key=str) == expected


@pytest.mark.parametrize("rows", [[], GOOD[:1], GOOD[1:]])
def test_one_class_is_refused(rows: list[Any], tmp_path: Path) -> None:
    counts = rf"{len(rows)} ads, {int(rows == GOOD[:1])} of them positive"
    with pytest.raises(UsageError, match=rf"--corpus: {counts}; both labels are needed"):
        read(tmp_path, rows)


def test_content_tells_corpora_apart(tmp_path: Path) -> None:
    rows = [{**row, "who": {"x": 1, "y": 0}} for row in GOOD]
    other = [{**rows[0], "who": {"x": 0, "y": 1}}, rows[1]]
    fields = Fields(ratings="who")
    one, two = read(tmp_path, rows, fields), read(tmp_path, other, fields)
    assert one.content() != two.content(), "other people's labels are another corpus"
    assert read(tmp_path, GOOD).content() == read(tmp_path, GOOD[::-1]).content()
    assert json.loads(json.dumps(one.content()))


# --- Dividing -----------------------------------------------------------------------------------


def corpus(n: int, share: float) -> Corpus:
    keys = tuple(sorted(content_key(f"ad {i}") for i in range(n)))
    gold = np.zeros(n, dtype=bool)
    gold[np.random.default_rng(n).permutation(n)[: round(share * n)]] = True
    return Corpus(keys, keys, keys, gold, None)


@given(
    st.integers(900, 1500),
    st.sampled_from([0.16, 0.3, 0.5]),
    st.sampled_from([None, 0.15, 0.1]),
    st.sampled_from([0.25, 0.4]),
    st.integers(0, 5),
)
def test_held_out_ads_are_never_asked_about(
    n: int, share: float, prevalence: float | None, holdout: float, seed: int
) -> None:
    found = corpus(n, share)
    parts = divide(found, prevalence, holdout, seed)
    for rows in (parts.pool, parts.natural, parts.balanced):
        assert (np.diff(rows) > 0).all(), "each ad once, in the corpus's order"
    assert not np.intersect1d(parts.pool, np.union1d(parts.natural, parts.balanced)).size
    wanted = found.gold.mean() if prevalence is None else prevalence
    assert found.gold[parts.natural].mean() == pytest.approx(wanted, abs=0.02)
    assert found.gold[parts.pool].mean() == pytest.approx(wanted, abs=0.02)
    assert found.gold[parts.balanced].mean() == 0.5
    # What the thinning takes away is in no pool; the rest is all used.
    used = np.union1d(parts.pool, parts.natural)
    assert (~found.gold).sum() == (~found.gold[used]).sum()
    assert len(parts.natural) == pytest.approx(holdout * len(used), abs=2)


def test_a_seed_is_another_division_and_the_same_seed_the_same() -> None:
    found = corpus(600, 0.3)
    one, again, other = (divide(found, 0.2, 0.25, seed) for seed in (1, 1, 2))
    assert all(
        np.array_equal(getattr(one, name), getattr(again, name))
        for name in ("pool", "natural", "balanced")
    )
    assert not np.array_equal(one.natural, other.natural)


def test_an_ads_place_does_not_depend_on_the_others_order() -> None:
    found = corpus(600, 0.3)
    back = np.arange(600)[::-1]
    turned = Corpus(found.keys[::-1], found.ids[::-1], found.texts[::-1], found.gold[back], None)
    one, other = divide(found, None, 0.25, 1), divide(turned, None, 0.25, 1)
    names = ({found.keys[i] for i in one.pool}, {turned.keys[i] for i in other.pool})
    assert names[0] == names[1]


def test_thinned_out_positives_fill_the_balanced_sample() -> None:
    found = corpus(1000, 0.4)
    parts = divide(found, 0.1, 0.25, 1)
    positives = parts.balanced[found.gold[parts.balanced]]
    assert not np.intersect1d(positives, parts.natural).size
    assert len(parts.balanced) > 200
    plain = divide(found, None, 0.25, 1)
    positives = plain.balanced[found.gold[plain.balanced]]
    assert np.isin(positives, plain.natural).all()


@pytest.mark.parametrize(
    ("prevalence", "holdout", "message"),
    [
        (0.5, 0.25, r"--prevalence 0\.5: the corpus has only 0\.100 positives"),
        (None, 0.05, r"--holdout 0\.05: leaves 5 positives to test on, at least 10 are needed"),
        (0.01, 0.25, r"--holdout 0\.25: leaves 2 positives to test on"),
    ],
)
def test_too_few_to_measure_anything(
    prevalence: float | None, holdout: float, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        divide(corpus(1000, 0.1), prevalence, holdout, 1)
