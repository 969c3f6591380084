"""Verdicts in the workspace: halves that never mix, imports that count once, kills that cost nothing."""

from __future__ import annotations

import dataclasses
import json
import random
import string
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.half_leaks import templated
from pipelines.contracts import ReviewItem
from pipelines.errors import RunFailed
from pipelines.numerics.split import EVALUATION, FINE_TUNING, SIDES, WITHHELD
from pipelines.store import files, storage
from pipelines.store.facts import AnsweredKeys
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import content_key
from pipelines.verdicts import commit_imports as stage
from pipelines.verdicts.commit_imports import describe
from pipelines.verdicts.halves import (
    HALVES,
    files_of,
    from_lines,
    latest,
    ratings,
    read_half,
)
from pipelines.verdicts.resolve_rows import Reading
from pipelines.verdicts.shown import shown_ads
from pipelines.verdicts.tables import read_csv
from tests.verdicts import item_of, mined

# Words that share no four characters in a row, so that no two of these ads are near-duplicates.
WORDS = [
    "apple",
    "bridge",
    "candle",
    "dragon",
    "engine",
    "flower",
    "guitar",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "ladder",
]
WORDS += [
    "magnet",
    "needle",
    "orchid",
    "pencil",
    "quartz",
    "rocket",
    "saddle",
    "turnip",
    "urchin",
    "violin",
    "walnut",
    "zipper",
]


def text_of(number: int) -> str:
    return f"{WORDS[number % 24]}{number // 24 or ''}"


def ids(pairs: Iterable[int]) -> list[str]:
    return [f"a{2 * i + side}" for i in pairs for side in (0, 1)]


def pairs_of(numbers: Iterable[int]) -> list[ReviewItem]:
    return [
        item_of(f"p{i}", (f"a{2 * i}", text_of(2 * i)), (f"a{2 * i + 1}", text_of(2 * i + 1)))
        for i in numbers
    ]


def sheet(ads: Iterable[str], expert: str = "anna", label: str = "bait") -> str:
    return "ad_id,label,expert\n" + "".join(f"{id},{label},{expert}\n" for id in ads)


def imported(place: Workspace, *files: str) -> list[Manifest]:
    """Import files' texts."""
    reading = Reading(shown_ads(place))
    imports = []
    for order, text in enumerate(files):
        name, data = f"in/{order}.csv", text.encode()
        imports.append(describe(name, "csv", data, read_csv(data, name), reading))
    return stage.commit(place, reading.shown, place.pairs_of().facts.origin.task, imports)


def two_rounds(root: Path) -> Workspace:
    mined(root, pairs_of(range(8)))
    return mined(root, pairs_of(range(8, 12)), number=2)


def halves(place: Workspace) -> dict[str, set[str]]:
    return {half: {v.ad_id for v in read_half(place, half, 1)} for half in HALVES}


def recorded(place: Workspace) -> dict[str, str]:
    found: dict[str, str] = {}
    for manifest in place.verdicts.by_round().values():
        for file in files_of(manifest, "sides"):
            for line in files.read(place.root, file).splitlines():
                fields = json.loads(line)
                assert fields["key"] not in found, "a side is recorded once"
                found[fields["key"]] = fields["side"]
    return found


def state(place: Workspace) -> dict[str, object]:
    """Return all that counts of a workspace's verdicts, but the random names of attempts."""
    found: dict[str, object] = {"sides": recorded(place)}
    for number, manifest in place.verdicts.by_round().items():
        facts = dataclasses.replace(manifest.facts, dead_letters=())
        written = [(f.path.split("/")[-1], f.rows, f.sha256) for f in manifest.files]
        found[f"round {number}"] = (facts, sorted(written), manifest.rows, manifest.config_hash)
    return found


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_verdicts_go_to_the_halves_of_their_round(tmp_path: Path) -> None:
    place = two_rounds(tmp_path)
    every = [f"a{n}" for n in range(24)]
    text = sheet(every[::2]) + sheet(every[1::2], label="fine").partition("\n")[2]
    text += "a999,bait,anna\na0,fine,bo\n"
    first, second = imported(place, text)
    assert (first.round, second.round) == (1, 2)
    found = halves(place)
    assert found["fine_tuning"] | found["evaluation"] == set(ids(range(12)))
    assert found["fine_tuning"] and found["evaluation"]
    assert not found["fine_tuning"] & found["evaluation"]
    # Of both kinds, as many in either half.
    for side in (0, 1):
        of_kind = {f"a{2 * i + side}" for i in range(12)}
        assert len(of_kind & found["evaluation"]) == len(of_kind & found["fine_tuning"]) == 6
    sides = recorded(place)
    assert set(sides) == set(shown_ads(place).round_of)
    keys = first.facts.keys
    by_side = {side: {k for k, s in sides.items() if s == side} for side in SIDES}
    assert set(keys.fine_tuning) == by_side[FINE_TUNING] & {
        content_key(text_of(i)) for i in range(16)
    }
    assert set(keys.evaluation) <= by_side[EVALUATION]
    assert (first.facts.experts, second.facts.experts) == (("anna", "bo"), ("anna",))
    [entry] = second.facts.imports
    assert (entry.verdicts, entry.rejected, entry.reasons) == (8, 1, {"unknown_ad": 1})
    assert (entry.rounds, first.facts.imports[0].rejected) == ((1, 2), 0)
    [letters] = second.facts.dead_letters
    assert b"a999" in storage.read(place.path(letters))
    assert (first.facts.evaluation_share, first.facts.seed) == (0.5, 3)


def test_the_split_is_by_the_tasks_seed_and_share(tmp_path: Path) -> None:
    found = []
    for name, changes in (
        ("a", {}),
        ("b", {}),
        ("c", {"seed": 4}),
        ("d", {"review": {"evaluation_share": 0.999}}),
    ):
        place = mined(tmp_path / name, pairs_of(range(12)), **changes)
        imported(place, sheet(["a0"]))
        found.append(recorded(place))
    assert found[0] == found[1] != found[2]
    assert set(found[3].values()) == {EVALUATION}


def test_near_duplicates_share_a_side_over_rounds(tmp_path: Path) -> None:
    long = [
        f"{WORDS[i]} {WORDS[i + 12]} for sale at the market near {WORDS[23 - i]}" for i in range(6)
    ]
    one = [
        item_of(f"p{i}", (f"a{i}", text), (f"b{i}", WORDS[11 - i])) for i, text in enumerate(long)
    ]
    # The next round shows the same ads with another ending, next to ads of their own.
    two = [
        item_of(f"q{i}", (f"c{i}", f"{text}!!"), (f"d{i}", f"{WORDS[17 - i]}s 9{i}7"))
        for i, text in enumerate(long)
    ]
    place = mined(tmp_path, one)
    imported(place, sheet(f"a{i}" for i in range(6)))
    before = recorded(place)
    mined(tmp_path, two, number=2)
    imported(place, sheet(f"c{i}" for i in range(6)))
    after = recorded(place)
    assert {key: after[key] for key in before} == before
    assert len(set(before.values())) == 2
    for text in long:
        assert after[content_key(text)] == after[content_key(f"{text}!!")]


def test_an_ad_that_would_join_the_halves_is_withheld(tmp_path: Path) -> None:
    # Half of their words are the same: not near-duplicates, but what has an end of either is of both.
    start, *ends = " ".join(WORDS[:6]), *(" ".join(WORDS[i : i + 4]) for i in (12, 16))
    one = [item_of(f"p{i}", (f"a{i}", f"{start} {end}")) for i, end in enumerate(ends)]
    place = mined(tmp_path, one)
    imported(place, sheet(["a0", "a1"]))
    found = halves(place)
    assert [len(found[half]) for half in HALVES] == [1, 1]
    bridge = " ".join([start, *ends[0].split()[:2], *ends[1].split()[:2]])
    mined(tmp_path, [item_of("q1", ("n1", bridge), ("n2", "of another kind"))], number=2)
    [manifest] = imported(place, sheet(["n1"]))
    assert recorded(place)[content_key(bridge)] == WITHHELD
    assert manifest.facts.keys == AnsweredKeys(withheld=(content_key(bridge),))
    assert halves(place) == found
    [file] = files_of(manifest, WITHHELD)
    assert [v.ad_id for v in from_lines(files.read(place.root, file))] == ["n1"]


def test_pairs_do_not_chain_the_ads_of_a_templated_corpus(tmp_path: Path) -> None:
    ads = templated(10, 240, 0.5, seed=2)
    kinds = [[text for text, positive in ads if positive == kind] for kind in (True, False)]
    for number in (1, 2, 3):
        shown = zip(*(texts[20 * number : 20 * number + 20] for texts in kinds), strict=True)
        place = mined(
            tmp_path,
            [item_of(f"{number}-{i}", (a, a), (b, b)) for i, (a, b) in enumerate(shown)],
            number,
        )
        imported(place, sheet(ad.ad_id for ad in shown_ads(place).ads() if ad.round == number))
        sizes = [len(found) for found in halves(place).values()]
        assert sum(sizes) >= 0.95 * 40 * number
        assert abs(sizes[0] / sum(sizes) - 0.5) <= 0.1


def test_labels_decide_what_a_half_lacks_and_unanswered_ads_do_not(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(6)))
    imported(place, sheet(["a0"]))
    sides = recorded(place)
    fine = [id for id in ids(range(6)) if sides[content_key(text_of(int(id[1:])))] == FINE_TUNING]
    imported(place, sheet(fine, expert="bo"))
    mined(tmp_path, pairs_of(range(6, 9)), number=2)
    imported(place, sheet(ids(range(6, 9))))
    assert halves(place)["fine_tuning"] >= {*fine}
    # The half that had labels gets the last one at most.
    assert len({*ids(range(6, 9))} & halves(place)["fine_tuning"]) <= 1
    sizes = [len(halves(place)[half]) for half in HALVES]
    assert abs(sizes[0] - sizes[1]) <= 1


def test_a_model_that_is_wrong_of_whole_templates_does_not_fill_one_half(tmp_path: Path) -> None:
    # Four templates of violating ads among eight, and the model takes no notice of which: all that
    # experts call positive must not lie in one half, in any round.
    for seed in range(6):
        root = tmp_path / str(seed)
        ads = [(text, number < 4) for number in range(8) for text in family(number, 12, seed)]
        random.Random(seed).shuffle(ads)
        for number in (1, 2, 3):
            shown = ads[32 * (number - 1) : 32 * number]
            items = [
                item_of(f"{number}-{i}", (shown[2 * i][0],) * 2, (shown[2 * i + 1][0],) * 2)
                for i in range(16)
            ]
            place = mined(root, items, number)
            bad = [text for text, positive in shown if positive]
            good = [text for text, positive in shown if not positive]
            imported(place, sheet(bad) + sheet(good, label="fine").partition("\n")[2])
            found = halves(place)
            positive = {text for text, kind in ads if kind}
            sizes = [len(positive & found[half]) for half in HALVES]
            assert abs(sizes[0] / sum(sizes) - 0.5) <= 0.1 + 3 / sum(sizes), (seed, number, sizes)


def family(number: int, ads: int, seed: int) -> list[str]:
    """Return ads that read nearly the same, of a template of their own."""
    draw = random.Random(1000 * seed + number)
    words = ["".join(draw.choices(string.ascii_lowercase, k=7)) for _ in range(9)]
    return [" ".join([*words, f"{draw.randrange(10**6)}"]) for _ in range(ads)]


def test_importing_a_file_twice_changes_nothing(tmp_path: Path) -> None:
    place = two_rounds(tmp_path)
    text = sheet(ids(range(12)))
    assert len(imported(place, text, text)) == 2
    before = tree(tmp_path)
    assert imported(place, text) == []
    assert tree(tmp_path) == before
    total = sum(len(read_half(place, half, 1)) for half in HALVES)
    assert total == 24


def test_a_round_mined_later_does_not_reopen_an_imported_file(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(8)))
    text = sheet(ids(range(9)))
    imported(place, text)
    mined(tmp_path, pairs_of(range(8, 12)), number=2)
    assert imported(place, text) == []


def test_overlapping_files_say_everything_once(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(8)))
    imported(place, sheet(ids(range(5))), sheet(ids(range(3, 8))))
    [manifest] = imported(place, sheet(ids(range(8)), expert="bo"))
    # The earlier files are listed, not copied.
    kinds = [file.path.split("/")[-1].split("-")[0] for file in manifest.files]
    assert kinds.count("sides.jsonl") == 1
    assert len({file.path.rsplit("/", 1)[0] for file in manifest.files}) == 2
    said = [v for half in HALVES for v in read_half(place, half, 1)]
    assert len(said) == 20 + 16
    assert len(latest(said)) == 32
    assert ratings(said).values.shape == (16, 2)
    assert (ratings(said).values == 1).all()


def test_a_later_import_overrules_and_a_skip_withdraws(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(2)))
    imported(place, sheet(ids(range(2))))
    imported(place, sheet(["a0"], label="fine") + "a1,skip,anna\n")
    said = [v for half in HALVES for v in read_half(place, half, 1)]
    assert {v.ad_id: v.label for v in latest(said)} == {
        "a0": "negative",
        "a1": "skip",
        "a2": "positive",
        "a3": "positive",
    }


def test_the_order_of_files_decides_between_verdicts_without_times(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(1)))
    imported(place, sheet(["a0"], label="bait"), sheet(["a0"], label="fine"))
    said = [v for half in HALVES for v in read_half(place, half, 1)]
    assert [v.label for v in latest(said)] == ["negative"]


def test_the_order_of_rows_decides_within_a_file(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(4)))
    # Line 12 comes after line 2 in the file, and before it in the alphabet.
    text = sheet(["a0", *ids(range(1, 4)), "a1", "a1", "a1"]) + "a0,fine,anna\n"
    imported(place, text)
    said = [v for half in HALVES for v in read_half(place, half, 1)]
    assert {v.label for v in latest(said) if v.ad_id == "a0"} == {"negative"}
    [manifest] = place.verdicts.by_round().values()
    assert manifest.facts.imports[0].changed_mind == 1


def test_nothing_usable_changes_nothing_and_says_why(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(2)))
    before = tree(tmp_path)
    text = sheet(["a0", "a1"], label="perhaps") + "a99,bait,anna\n"
    with pytest.raises(RunFailed, match=r"no usable verdict: unknown_label 2 \(in/0.csv, line 2: "):
        imported(place, text)
    with pytest.raises(RunFailed, match="no usable verdict: unanswered 2"):
        imported(place, "ad_id,label,expert\na0,,\na1,,\n")
    with pytest.raises(RunFailed, match=r"the files hold no rows: 0\.csv"):
        imported(place, "ad_id,label,expert\n")
    assert tree(tmp_path) == before
    assert place.current_round() == 1


def test_a_useless_file_among_others_leaves_its_dead_letters(tmp_path: Path) -> None:
    place = two_rounds(tmp_path)
    [manifest] = imported(place, sheet(["zzz"]), sheet(ids(range(8))))
    # Round 2 has no verdicts and stays open.
    assert manifest.round == 1 and place.current_round() == 2 and place.latest(2, "pairs")
    assert [entry.verdicts for entry in manifest.facts.imports] == [16, 0]
    assert len(manifest.facts.dead_letters) == 1
    assert imported(place, sheet(["zzz"])) == []


def test_leaking_an_evaluation_ad_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check on leaks of this file finds one: both halves hold an ad that was put on each."""
    place = mined(tmp_path, pairs_of(range(8)))
    imported(place, sheet(ids(range(8))))
    leaked = min(halves(place)["evaluation"])
    # A side that was forgotten and drawn again by another seed would leak.
    monkeypatch.setattr(stage, "_recorded_sides", lambda *_: {})
    flipped = dict.fromkeys(shown_ads(place).round_of, FINE_TUNING)
    monkeypatch.setattr(
        stage, "split_ads", lambda *_: {k: stage.Side(s, k) for k, s in flipped.items()}
    )
    imported(place, sheet([leaked], expert="bo"))
    found = halves(place)
    assert found["fine_tuning"] & found["evaluation"] == {leaked}


@pytest.mark.parametrize("partial", [False, True])
def test_a_kill_at_any_write_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: bool
) -> None:
    first = sheet(ids(range(6))) + "a99,bait,anna\n"
    second = sheet(ids(range(4, 12)), expert="bo")
    whole = two_rounds(tmp_path / "whole")
    imported(whole, sheet(["a0"], expert="cy"))
    imported(whole, first, second)
    wanted = state(whole)
    writes = 0
    real = storage.write
    for stop in range(1, 50):
        place = two_rounds(tmp_path / f"killed{stop}")
        imported(place, sheet(["a0"], expert="cy"))
        writes = 0

        def write(path: str, data: bytes, stop: int = stop) -> None:
            nonlocal writes
            writes += 1
            if writes == stop:
                # A dying disk may leave half a file, whose manifest never comes.
                if partial and not path.endswith("manifest.json"):
                    real(path, data[: len(data) // 2])
                raise KeyboardInterrupt
            real(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(storage, "write", write)
            try:
                imported(place, first, second)
            except KeyboardInterrupt:
                killed = True
            else:
                killed = False
        if not killed:
            break
        imported(place, first, second)
        assert state(place) == wanted, f"killed at write {stop}"
        assert imported(place, first, second) == []
    assert stop > 8, "both rounds have several files to be killed at"


def test_another_import_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mined(tmp_path, pairs_of(range(2)))
    real = stage._write_round

    def slow(*args: object) -> Manifest:
        monkeypatch.setattr(stage, "_write_round", real)
        imported(place, sheet(["a1"], expert="bo"))
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "_write_round", slow)
    with pytest.raises(RunFailed, match="has got other verdicts while these were written"):
        imported(place, sheet(["a0"]))
    assert len(imported(place, sheet(["a0"]))) == 1
    assert halves(place)["fine_tuning"] | halves(place)["evaluation"] == {"a0", "a1"}


def test_earlier_evaluation_files_may_be_unreadable(tmp_path: Path) -> None:
    # Importing does not open them, so damage to them does not show here.
    place = two_rounds(tmp_path)
    imported(place, sheet(ids(range(12))))
    for path in tmp_path.rglob("evaluation-*.jsonl"):
        path.write_bytes(b"damaged")
    assert len(imported(place, sheet(ids(range(12)), expert="bo"))) == 2
    with pytest.raises(RunFailed, match="has changed since"):
        read_half(place, "evaluation", 1)


def test_a_deleted_pairs_attempt_takes_no_side_back(tmp_path: Path) -> None:
    place = mined(tmp_path, pairs_of(range(8)))
    imported(place, sheet(ids(range(8))))
    before = recorded(place)
    for path in tmp_path.glob("rounds/0001/pairs/*/*"):
        path.unlink()
    mined(tmp_path, pairs_of(range(4, 12)), number=2)
    imported(place, sheet(["a20"]))
    assert recorded(place).items() >= before.items()


def test_every_ad_is_a_family_of_its_own_but_for_near_duplicates(tmp_path: Path) -> None:
    alone = [item_of(f"i{i}", (f"a{i}", text_of(i))) for i in range(16)]
    place = mined(tmp_path, [*alone, *pairs_of(range(8, 12))])
    ads = [f"a{i}" for i in range(24)]
    [manifest] = imported(place, sheet(ads))
    lines = [
        line for f in files_of(manifest, "sides") for line in files.read(place.root, f).splitlines()
    ]
    rows = [json.loads(line) for line in lines]
    assert len({row["component"] for row in rows}) == 24
    found = halves(place)
    assert found["fine_tuning"] | found["evaluation"] == set(ads)
    assert all(found[half] & set(ads[:16]) for half in HALVES)
