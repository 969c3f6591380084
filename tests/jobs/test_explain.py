"""Why an ad was, or was not, put before experts: against the workspace's own files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.backends import fake
from models.backends.base import BackendError, Reading, Said
from pipelines import api, cli
from pipelines.contracts import ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import find_ad
from pipelines.jobs.explained import Explained, NotAnAd
from pipelines.numerics import kmeans
from pipelines.store import blocks, scores
from pipelines.store.clusters import read_clusters
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.jobs.loop import EXPERTS, KEY_OF, Loop, said_by, tree, write_verdicts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one mined round of the tiny ads, some copies and some bad records."""
    folder = tmp_path_factory.mktemp("explained")
    ads = helpers.tiny_ads()
    ads += [{"id": "t9001", "text": ads[3]["text"].upper()}, {"id": "blank", "text": " \u200b"}]
    ads += [{"id": "twice", "text": "One text"}, {"id": "twice", "text": "Another text"}]
    helpers.write_jsonl(folder / "ads.jsonl", ads)
    task = helpers.write_task(folder, helpers.FAKE_TASK)
    api.mine(task, folder / "ads.jsonl", folder / "w", max_rejected_share=0.1)
    return folder / "w"


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose band was too large to be searched each with each."""
    folder = tmp_path_factory.mktemp("routed")
    corpus = helpers.write_jsonl(folder / "ads.jsonl", helpers.tiny_ads())
    extra = "overlaps: {per_positive_cluster: 1}\nsearch: {exhaustive_rows: 10}\n"
    api.mine(helpers.write_task(folder, helpers.FAKE_TASK + extra), corpus, folder / "w")
    return folder / "w"


def explained(root: Path, *args: str, **flags: object) -> Explained:
    found = api.explain(root, *args, **flags)  # type: ignore[arg-type]
    assert isinstance(found, Explained)
    return found


def scored(root: Path, number: int = 1) -> pa.Table:
    place = Workspace(str(root))
    manifest = scores.scored_of(place, place.pairs_of(number))
    assert manifest is not None
    return helpers.scored_table(root, manifest)


def items(root: Path, number: int = 1) -> list[ReviewItem]:
    place = Workspace(str(root))
    return place.read_items(place.pairs_of(number))


def test_a_chosen_pair_is_explained_from_either_side(root: Path) -> None:
    item = next(item for item in items(root) if item.source == "boundary")
    place = Workspace(str(root))
    threshold = place.pairs_of().facts.threshold
    margins = scored(root).column("margin").to_numpy()
    for ad, other in (item.ads, item.ads[::-1]):
        found = explained(root, ad.id)
        assert (found.ad.id, found.ad.text, found.ad.key) == (ad.id, ad.text, ad.key)
        assert (found.margin, found.probability, found.label) == (
            ad.margin,
            ad.probability,
            ad.label,
        )
        assert found.threshold_margin == threshold.margin
        assert (found.rank, found.ads) == (1 + int((margins > ad.margin).sum()), 200)
        assert found.home and found.home.cluster == ad.cluster
        mixes = other.cluster in {mix.cluster for mix in found.home.mixes}
        assert ("though clusters" in found.why[0]) != mixes
        [showing] = found.showings
        assert (showing.item_id, showing.partner, showing.round) == (item.item_id, other.id, 1)
        assert found.chosen and len(found.why) == 1
        assert found.why[0].startswith(f"chosen: {item.item_id}, place {item.rank} of 12, beside ")
        assert repr(other.id) in found.why[0] and f"{item.distance:.3f}" in found.why[0]
        assert found.opinions == ()


def test_what_was_drawn_says_with_which_probability(root: Path) -> None:
    item = next(item for item in items(root) if item.propensity is not None and len(item.ads) == 2)
    drawn, partner = sorted(item.ads, key=lambda ad: ad.key != item.drawn)
    [why] = explained(root, drawn.id).why
    assert why.startswith("chosen by chance: ") and f"probability of {item.propensity:.4g}" in why
    assert explained(root, drawn.id).showings[0].propensity == item.propensity
    [why] = explained(root, partner.id).why
    assert why.startswith("chosen as a partner: ")
    assert explained(root, partner.id).showings[0].propensity is None


def test_neighbours_are_the_nearest_of_either_label(root: Path) -> None:
    place = Workspace(str(root))
    pairs = place.pairs_of()
    manifest = place.clusters.find(1, pairs.config_hash)
    assert manifest is not None
    table = scored(root)
    vectors = kmeans.project(read_clusters(place, manifest).space, blocks.vectors(table))
    positive = table.column("margin").to_numpy() >= pairs.facts.threshold.margin
    ids = table.column("id").to_pylist()
    row = ids.index("t0042")
    away = np.linalg.norm(vectors.astype(np.float64) - vectors[row], axis=1)
    away[row] = math.inf
    found = explained(root, "t0042")
    for label, side in (("positive", positive), ("negative", ~positive)):
        nearest = sorted(np.flatnonzero(side), key=lambda i: away[i])[:3]
        assert [near.id for near in found.near[label]] == [ids[i] for i in nearest]
        told = [near.distance for near in found.near[label]]
        assert told == pytest.approx(away[nearest], abs=1e-5)


@pytest.mark.parametrize(
    ("mined", "expected"),
    [("root", {"band", "budget"}), ("routed", {"band", "budget", "cluster"})],
)
def test_every_ad_of_a_round_is_accounted_for(
    mined: str, expected: set[str], request: pytest.FixtureRequest
) -> None:
    """No ad is left without a reason, and none is given that its own figures contradict."""
    root = request.getfixturevalue(mined)
    place = Workspace(str(root))
    shown = {ad.id for item in items(root) for ad in item.ads}
    rounds = find_ad.rounds_of(place, None)
    reasons: dict[str, int] = {}
    for id in scored(root).column("id").to_pylist()[::3]:
        found = explained(root, id)
        assert found.why and found.chosen == (id in shown) == found.why[0].startswith("chosen")
        for why in found.why:
            if "outside the band" in why:
                reasons["band"] = 1
                assert abs(found.margin - found.threshold_margin) > 0
            elif "is in none of the" in why:
                reasons["cluster"] = 1
                assert found.home is not None and found.home.mixes == ()
            elif "nearest possible partner" in why:
                reasons["budget"] = 1
    assert set(reasons) == expected
    assert [place.pairs.round for place in rounds] == [1]


def test_a_near_copy_of_a_shown_ad_says_of_which(tmp_path: Path) -> None:
    ads = helpers.tiny_ads()
    ads += [{"id": f"x{ad['id']}", "text": f"{ad['text']}."} for ad in ads]
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", ads)
    text = helpers.FAKE_TASK.replace("budget: 12", "budget: 12, near_identical: 0.9")
    api.mine(helpers.write_task(tmp_path, text), corpus, tmp_path / "w")
    item = next(item for item in items(tmp_path / "w") if item.source == "boundary")
    for ad in item.ads:
        twin = ad.id.removeprefix("x") if ad.id.startswith("x") else f"x{ad.id}"
        told = "; ".join(explained(tmp_path / "w", twin).why)
        assert "nearly identical (cosine 0.9" in told
        assert f"to {ad.id!r}, which {item.item_id} shows" in told


def test_a_new_text_is_scored_as_the_corpus_was(root: Path) -> None:
    text = "You won this miracle lamp! Guaranteed winner"
    found = explained(root, ad=text)
    margin = float(fake.FakeLabeler().label([text]).margin[0])
    assert (found.ad.id, found.ad.text, found.ad.copies) == ("", text, 0)
    assert found.margin == margin and found.label == "positive"
    margins = scored(root).column("margin").to_numpy()
    assert found.rank == 1 + int((margins > margin).sum())
    assert found.why[0] == "it is no ad of the corpus of round 1, so nobody can be asked about it"
    assert (
        all(why.startswith("it would not be chosen: ") for why in found.why[1:]) and found.why[1:]
    )
    assert not found.showings and not found.chosen


def test_a_text_of_the_corpus_is_its_ad(root: Path) -> None:
    ad = helpers.tiny_ads()[5]
    found = explained(root, ad=f"  {ad['text'].upper()} ")
    assert found.ad.id == ad["id"] and found.ad.text == ad["text"]
    assert found.notes == (f"this is the text of the ad {ad['id']!r} of the corpus",)


def test_a_copy_leads_to_the_ad_that_stands_for_it(root: Path) -> None:
    own = helpers.tiny_ads()[3]["id"]
    found = explained(root, "t9001")
    assert (found.ad.id, found.ad.copies, found.ad.asked) == (own, 2, "t9001")
    assert found.ad.asked_at == f"{root.parent / 'ads.jsonl'}, line 201"
    assert (
        f"t9001 ({found.ad.asked_at}) is a copy: its text was scored once, as that of {own}."
        in repr(found)
    )
    assert "\n  copies       2, weight 2.000\n" in repr(found)
    # A content key is as good as an id.
    assert explained(root, found.ad.key).ad.id == own


@pytest.mark.parametrize(
    ("id", "reason", "words"),
    [("blank", "empty_text", "line 202"), ("twice", "id_conflict", "2 different texts")],
)
def test_a_rejected_record_says_why(id: str, reason: str, words: str, root: Path) -> None:
    found = api.explain(root, id)
    assert isinstance(found, NotAnAd)
    assert (found.asked, found.reason, found.round) == (id, reason, 1)
    assert words in repr(found) and f"{id} is no ad of round 1: the record was rejected." in repr(
        found
    )
    assert Path(found.dead_letters).is_file() and found.to_json()["rejected"] is True


def test_a_rejected_record_is_found_where_its_dead_letter_is_lost(root: Path) -> None:
    found = api.explain(root, "blank")
    assert isinstance(found, NotAnAd)
    letter = Path(found.dead_letters)
    data = letter.read_bytes()
    letter.unlink()
    try:
        again = api.explain(root, "blank")
    finally:
        letter.write_bytes(data)
    assert isinstance(again, NotAnAd)
    assert (again.reason, again.position, again.dead_letters) == ("empty_text", "line 202", "")


def test_what_is_no_ad_at_all_is_refused_with_what_is_near(root: Path) -> None:
    with pytest.raises(
        UsageError, match=r"t0l42: no ad, no copy and .* of round 1 .*did you mean .*'t0042'"
    ):
        api.explain(root, "t0l42")
    item = items(root)[0]
    with pytest.raises(
        UsageError, match=f"is a review item; explain one of its ads: '{item.ads[0].id}'"
    ):
        api.explain(root, item.item_id)
    with pytest.raises(UsageError, match=r"give either an AD_ID of the corpus, or a text with ad"):
        api.explain(root)
    with pytest.raises(UsageError, match="give either"):
        api.explain(root, "t0042", ad="text")
    with pytest.raises(UsageError, match="ad: nothing of it is left"):
        api.explain(root, ad=" \u200b")
    with pytest.raises(UsageError, match="round 3: has no pairs"):
        api.explain(root, "t0042", round=3)
    with pytest.raises(UsageError, match="holds no pairs; start with `scout mine`"):
        api.explain(root.parent / "empty", "t0042")


def test_a_corpus_that_is_gone_tells_no_copies(root: Path) -> None:
    corpus = root.parent / "ads.jsonl"
    moved = corpus.rename(corpus.with_name("moved.jsonl"))
    try:
        assert explained(root, "t0042").ad.id == "t0042"
        with pytest.raises(
            UsageError, match=r"whether it is a copy of one is not known: .*no file matches"
        ):
            api.explain(root, "t9001")
    finally:
        moved.rename(corpus)


def test_it_only_reads(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(root)
    assert cli.main(["explain", str(root), "t0042", "--quiet"]) == cli.OK
    assert "t0042, round 1 of tiny:\n" in capsys.readouterr().out
    assert cli.main(["explain", str(root), "--ad", "Free lamp", "--json", "--quiet"]) == cli.OK
    found = json.loads(capsys.readouterr().out)
    assert found["ad"]["text"] == "Free lamp" and found["reading"]["kept"] == "Free lamp"
    assert set(found["near"]) == {"positive", "negative"}
    assert tree(root) == before


def test_an_ad_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ads = [{**ad, "text": f"\x1b[31m{ad['text']}\u202e"} for ad in helpers.tiny_ads()]
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", ads)
    api.mine(helpers.write_task(tmp_path), corpus, tmp_path / "w")
    assert cli.main(["explain", str(tmp_path / "w"), "t0001", "--quiet"]) == cli.OK
    out = capsys.readouterr().out
    assert "\\u001b[31m" in out and not {"\x1b", "\u202e"} & set(out)


def test_a_lost_model_leaves_what_was_stored(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise BackendError("no weights here")

    monkeypatch.setattr(fake.Fake, "load", broken)
    found = explained(root, "t0042")
    assert found.reading is None and found.unread == "no weights here"
    assert "How the model read it is not known: no weights here\n" in repr(found)
    with pytest.raises(UsageError, match="ad: the model that scored round 1: no weights here"):
        api.explain(root, ad="Free lamp")


def test_a_committees_voices_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        Said("label", "Ad: Free lamp\nLabel:", " bad", " good", 1.5, 0.75, 2.25),
        Said("violates", "Ad: Free lamp\nViolates:", " Yes", " No", math.nan, 0.25, math.nan),
    )
    reading = Reading("Free lamp", said, 0.5, 0.5, -3.0)
    monkeypatch.setattr(fake.FakeLabeler, "read", lambda *_: reading)
    found = explained(root, ad="Free lamp")
    shown = repr(found)
    assert '  label, voice 0.750: log-odds +1.500 of " bad" against " good", adds +2.250\n' in shown
    assert "    | Ad: Free lamp\n    | Label:\n" in shown
    assert "cosine 0.500, adds +0.500; the start for every ad -3.000" in shown
    voices = found.to_json()["reading"]["said"]
    assert [voice["answer"] for voice in voices] == [1.5, None]
    json.dumps(voices, allow_nan=False)


# --- Several rounds -----------------------------------------------------------------------------


def test_rounds_and_experts(loop: Loop) -> None:
    first, second = loop.shown(1)[0], loop.shown(2)[0]
    # By default the newest round, which shows what the first one showed no more.
    found = explained(loop.root, first)
    assert (found.round, found.model_round, found.chosen) == (2, 1, False)
    assert found.why[0].startswith("not chosen: experts saw it in round 1 (")
    assert [showing.round for showing in found.showings] == [1]
    side = loop.sides()[first]
    assert [(o.expert, o.label, o.half, o.counts) for o in found.opinions] == [
        (expert, said_by(expert, first), side, True) for expert in EXPERTS
    ]
    before = explained(loop.root, first, round=1)
    assert (before.round, before.model_round, before.chosen) == (1, 0, True)
    assert before.margin != found.margin
    assert explained(loop.root, second).chosen
    [later] = explained(loop.root, second, round=1).showings
    assert later.round == 2


def test_a_trained_models_margin_is_what_was_stored(loop: Loop) -> None:
    ad = loop.place.read_items(loop.place.pairs_of(2))[0].ads[0]
    found = explained(loop.root, ad=ad.text)
    assert found.ad.id == ad.id and found.margin == ad.margin
    assert found.reading is not None and found.reading.said == ()
    new = explained(loop.root, ad=f"{ad.text} miracle secret")
    assert new.ad.id == "" and new.round == 2 and new.unread == ""


def test_a_changed_mind_is_told(loop: Loop) -> None:
    id = loop.shown(1)[0]
    other = "negative" if said_by("anna", id) == "positive" else "positive"
    path = write_verdicts(loop.folder / "again.csv", [(id, other, "anna")])
    assert loop.command("import", path, "--on_conflict", "replace") == cli.OK
    said = [(o.label, o.counts) for o in explained(loop.root, id).opinions if o.expert == "anna"]
    assert said == [(said_by("anna", id), False), (other, True)]
    assert "and said otherwise later" in repr(explained(loop.root, id))


def test_an_audits_ad_is_told(loop: Loop) -> None:
    api.audit(loop.folder / "task.yaml", loop.root, budget=20)
    ad = loop.place.read_items(loop.place.audit_of())[0].ads[0]
    found = explained(loop.root, ad.id)
    assert found.why[0].startswith("not chosen: the audit of round 2 drew it (")
    assert found.showings[-1].source == "audit" and not found.chosen


def test_a_strategy_of_single_ads_tells_the_place(tmp_path: Path) -> None:
    text = helpers.FAKE_TASK.replace("budget: 12", "budget: 12, strategy: uncertainty")
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    api.mine(helpers.write_task(tmp_path, text), corpus, tmp_path / "w")
    root = tmp_path / "w"
    threshold = Workspace(str(root)).pairs_of().facts.threshold.margin
    table = scored(root)
    gaps = np.abs(table.column("margin").to_numpy().astype(np.float64) - threshold)
    shown = {ad.id for item in items(root) for ad in item.ads}
    ids = table.column("id").to_pylist()
    row = next(i for i in np.argsort(gaps)[::-1] if ids[i] not in shown)
    found = explained(root, ids[row])
    assert found.home is None and not found.chosen
    place = 1 + int((gaps < gaps[row]).sum())
    assert found.why[0] == (
        f"not chosen: by uncertainty it is number {place} of the ads that experts have not seen, and the "
        "budget took 6"
    )
    assert found.why[1] == "nor is it among the 6 ads that were drawn at random"
    single = next(item for item in items(root) if item.source == "uncertainty")
    assert explained(root, single.ads[0].id).why[0].startswith(f"chosen: {single.item_id}, place ")


def test_lost_blocks_are_told(loop: Loop) -> None:
    for path in helpers.blocks_in(loop.root):
        path.unlink()
    with pytest.raises(RunFailed, match="the scored ads of round 2 are no longer all in"):
        api.explain(loop.root, loop.shown(1)[0])


def test_keys_of_the_loop_are_ids_too(played: Loop) -> None:
    id = played.shown(1)[0]
    assert explained(played.root, KEY_OF[id]).ad.id == id
