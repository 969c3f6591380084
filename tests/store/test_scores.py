"""The score store: what is read is what was written, no more of it than is needed, and found again."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts import ScoredPart, scored_schema
from pipelines.numerics import hashing
from pipelines.store import files, parquet, scores, storage
from pipelines.store.facts import ScoredFacts
from pipelines.store.workspace import Manifest, Workspace
from tests import helpers
from tests.helpers import provenance, watched_reads, write_scored_blocks
from tests.stages.test_find_opposite_pairs import scored_rows
from tests.test_contracts import scored_table

ATTEMPT = "rounds/0001/scored/attempt-0001-00000000"


def ordered(table: pa.Table) -> pa.Table:
    return table.sort_by([("margin", "ascending"), ("key", "ascending")])


def stored(root: Path, rows: int, dim: int = 5) -> tuple[ScoredPart, pa.Table]:
    """Write a block; returns its part and its rows in the block's order."""
    table = scored_table(rows, dim)
    [part] = write_scored_blocks(root, [table])
    return part, ordered(table)


def committed(root: Path, parts: list[ScoredPart], shards: int = 1) -> Manifest[ScoredFacts]:
    """Commit parts as an attempt."""
    listed = [scores.write_parts(str(root), ATTEMPT, n, parts[n::shards]) for n in range(shards)]
    rows = sum(part.rows for part in parts)
    origin = dataclasses.replace(provenance(), score_key="key")
    facts = ScoredFacts(origin, rows, 0, {}, rows, float(rows), ())
    Workspace(str(root)).commit(Manifest.of(ATTEMPT, "hash", listed, rows, facts))
    found = Workspace(str(root)).scored.latest(1)
    assert found
    return found


@pytest.mark.parametrize("rows", [1, 17, 300])
def test_all_rows_some_columns_or_some_rows(tmp_path: Path, rows: int) -> None:
    part, table = stored(tmp_path, rows)
    assert part.rows == rows == scores.rows_of(part.block)
    whole = scores.read(str(tmp_path), part)
    assert whole.schema.equals(scored_schema(5)) and whole.equals(table)
    names = ["vector", "id", "key"]
    assert scores.read_columns(str(tmp_path), part, names).equals(table.select(names))
    rng = np.random.default_rng(0)
    for wanted in (rng.random(rows) < 0.1, np.zeros(rows, bool), np.arange(rows) > 250):
        with scores.OpenPart(str(tmp_path), part) as block:
            assert block.rows(wanted).equals(table.filter(pa.array(wanted)))
            found = block.rows(wanted, names)
        assert found.equals(table.filter(pa.array(wanted)).select(names))


def test_another_corpus_has_ids_and_weights_of_its_own_and_no_copy(tmp_path: Path) -> None:
    part, table = stored(tmp_path, 300)
    rng = np.random.default_rng(1)
    rows = np.flatnonzero(rng.random(300) < 0.4)
    ads = table.take(pa.array(rows)).set_column(
        4, "weight", pa.array(np.arange(len(rows)) * 7, pa.int64())
    )
    ads = ads.set_column(1, "id", pa.array([f"other {n}" for n in range(len(rows))]))
    before = {path: path.stat().st_size for path in tmp_path.rglob("*.parquet")}
    shuffled = rng.permutation(len(rows))
    found = [(part.block, rows[shuffled], ads.take(pa.array(shuffled)))]
    [other] = scores.write_overlay(str(tmp_path), "scores/key/corpora/b", "known-all", found)
    assert scores.read(str(tmp_path), other).equals(ads)
    wanted = rng.random(len(rows)) < 0.3
    with scores.OpenPart(str(tmp_path), other) as block:
        assert block.rows(wanted).equals(ads.filter(pa.array(wanted)))
        assert block.rows(wanted, ["vector", "key"]).equals(
            ads.filter(pa.array(wanted)).select(["vector", "key"])
        )
        assert block.columns(["margin"]).equals(ads.select(["margin"]))
    assert scores.read(str(tmp_path), part).equals(table), "as it was"
    new = set(tmp_path.rglob("*.parquet")) - before.keys()
    assert [path.name.partition("-")[0] for path in new] == ["known"]


def test_the_same_rows_are_the_same_files(tmp_path: Path) -> None:
    # Blocks are named by their content: a retried bundle must write the same files.
    part, _ = stored(tmp_path, 30)
    again, _ = stored(tmp_path, 30)
    assert part == again and len(list(tmp_path.rglob("*.parquet"))) == 3
    backwards = scored_table(30).take(pa.array(range(29, -1, -1)))
    assert write_scored_blocks(tmp_path, [backwards]) == [part], "however they came"
    assert write_scored_blocks(tmp_path, [scored_table(31).slice(1)]) != [part]


def test_files_that_differ_in_their_rows_alone_differ_in_name(tmp_path: Path) -> None:
    # The footers of such files hold the same sizes and places.
    vectors = [np.full((2, 3), value, dtype="<f2") for value in (0.25, 0.75)]
    tables = [pa.table({"vector": pa.array([row.tobytes() for row in rows])}) for rows in vectors]
    names = {parquet.footer_hash(parquet.pack([t], parquet.content_hash([t]), 128)) for t in tables}
    assert len(names) == 2


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    part, _ = stored(tmp_path, 1000, dim=384)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    with helpers.counted_blocks() as counts, watched_reads() as paths:
        scores.read_columns(str(tmp_path), part, ["margin"])
    assert 0 < counts["ranges"] < 0.03 * size, "margins and the footer"
    assert not [path for path in paths if "vectors" in path or "corpora" in path]
    near = np.zeros(1000, dtype=bool)
    near[520:550] = True
    with helpers.counted_blocks() as counts, scores.OpenPart(str(tmp_path), part) as block:
        assert block.rows(near).num_rows == 30
    assert 0.1 * size < counts["ranges"] < 0.2 * size, "one group of eight"


@pytest.mark.parametrize("kind", ["rows", "vectors", "new"])
def test_every_flipped_bit_is_noticed_where_it_matters(tmp_path: Path, kind: str) -> None:
    part, table = stored(tmp_path, 140)
    path = next(path for path in tmp_path.rglob("*.parquet") if kind in path.name)
    data = path.read_bytes()
    footer = len(data) - parquet._footer_size(data[-8:])
    said = []
    # One bit of one byte of seven.
    for at in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            assert scores.read(str(tmp_path), part).equals(table), f"byte {at} was not noticed"
            assert at < footer, f"byte {at} was not noticed"
        except files.Damaged as error:
            said.append(error.message)
    assert len(said) > len(data) / 7 / 2
    for message in said:
        assert f"{path.name}: has changed since it was written (" in message
        assert message.endswith("delete it and run again: its ads are scored anew")


@pytest.mark.parametrize("how", ["cut", "longer", "gone"])
@pytest.mark.parametrize("kind", ["rows", "vectors", "new"])
def test_a_cut_and_a_lost_file_are_named(tmp_path: Path, how: str, kind: str) -> None:
    part, _ = stored(tmp_path, 20)
    manifest = committed(tmp_path, [part])
    assert scores.is_whole(Workspace(str(tmp_path)), manifest)
    path = next(path for path in tmp_path.rglob("*.parquet") if kind in path.name)
    data = path.read_bytes()
    what = rf"{path.name}: has changed since it was written \(its footer is another\)"
    if how == "gone":
        path.unlink()
        what = rf"{path.name}: is gone; run again: its ads are scored anew"
        assert not scores.is_whole(Workspace(str(tmp_path)), manifest)
    else:
        path.write_bytes(data[:-100] if how == "cut" else data + b"PAR1")
    with pytest.raises(files.Damaged, match=what):
        scores.read(str(tmp_path), part)


def test_where_nobody_looks_for_all_files_a_loss_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, _ = stored(tmp_path, 20)
    place, manifest = Workspace(str(tmp_path)), committed(tmp_path, [part])
    monkeypatch.setattr(storage, "is_local", lambda path: False)
    monkeypatch.setattr(storage, "open_ranges", io.FileIO)
    monkeypatch.setattr(storage, "exists", lambda path: Path(path).exists())
    monkeypatch.setattr(storage, "write", lambda path, data: Path(path).write_bytes(data) and None)
    monkeypatch.setattr(storage, "join", lambda *parts: "/".join(parts))
    (tmp_path / part.block).unlink()
    assert scores.is_whole(place, manifest), "nobody has looked"
    with pytest.raises(files.Damaged, match="is gone"):
        scores.read(place.root, part)
    assert not scores.is_whole(place, manifest)


def test_known_ads_are_those_of_the_same_text(tmp_path: Path) -> None:
    root, table = str(tmp_path), scored_table(40)
    folder = scores.folder_of("key", "")
    first = scores.write_block(root, folder, table.slice(0, 25), ["Thai"] * 25)
    second = scores.write_block(root, folder, table.slice(20), [""] * 20)
    found = scores.blocks_of(root, "key", "")
    assert found == sorted([first, second]) and scores.blocks_of(root, "other", "") == []
    texts = table.column("text").to_pylist()
    texts[3] = texts[3] + " "
    asked = [*range(39, -1, -2), 3]
    hits = list(
        scores.known(
            root,
            found,
            table.column("key").take(pa.array(asked)),
            pa.array([texts[n] for n in asked]),
        )
    )
    ads = sorted(asked[ad] for _, _, places, _ in hits for ad in places)
    assert ads == sorted({*asked} - {3}), "each once, and not the one that is spelt otherwise"
    for path, rows, places, scripts in hits:
        with scores._reader(root, path) as block:
            keys = block.columns(["key"]).column("key").take(pa.array(rows)).to_pylist()
        assert keys == [table.column("key")[asked[ad]].as_py() for ad in places]
        assert set(scripts) == ({"Thai"} if path == first else {""})


@pytest.mark.parametrize(("ads", "length"), [(0, 0), (1000, 0), (1001, 1), (16001, 2)])
def test_a_store_is_cut_by_how_many_ads_there_are(ads: int, length: int) -> None:
    assert scores.prefix_length(ads, partition_ads=1000) == length


def test_blocks_of_a_finer_or_coarser_cut_are_found(tmp_path: Path) -> None:
    root, table = str(tmp_path), scored_table(3)
    held = {
        prefix: scores.write_block(root, scores.folder_of("key", prefix), table, [prefix] * 3)
        for prefix in ("", "a", "ab", "abc", "b", "bc")
    }
    for prefix, wanted in (
        ("", ["", "a", "ab", "abc", "b", "bc"]),
        ("ab", ["", "a", "ab", "abc"]),
        ("b", ["", "b", "bc"]),
        ("c", [""]),
    ):
        assert scores.blocks_of(root, "key", prefix) == sorted(held[p] for p in wanted)


def test_a_block_that_was_being_written_is_not_there(tmp_path: Path) -> None:
    part, _ = stored(tmp_path, 9)
    for name in (part.block, part.block.replace(".rows.", ".vectors.")):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        assert scores.blocks_of(str(tmp_path), "key", "") == []
        (tmp_path / name).write_bytes(data)
    assert scores.blocks_of(str(tmp_path), "key", "") == [part.block]


def test_small_blocks_are_joined_and_what_was_there_stays(tmp_path: Path) -> None:
    root, table, folder = str(tmp_path), scored_table(330), scores.folder_of("key", "")
    many = scores.SMALL_BLOCKS
    small = [
        scores.write_block(root, folder, table.slice(n * 10, 10), [str(n)] * 10)
        for n in range(many - 1)
    ]
    # A run that was killed and the next one may hold the same ads.
    small.append(scores.write_block(root, folder, table.slice(0, 9), ["0"] * 9))
    large = scores.write_block(root, folder, table.slice(200, 60), [""] * 60)
    for few in (small[:-1], [*small[:-1], large]):
        assert scores.compact(root, few, 100) == sorted(few), "too few to be worth it"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    there = scores.blocks_of(root, "key", "")
    kept = scores.compact(root, there, 100)
    assert large in kept and {scores.rows_of(path) for path in kept} == {60, 100, 50}
    assert sorted(kept) == scores.blocks_of(root, "key", "")
    assert all(path.read_bytes() == data for path, data in before.items())
    hits = list(scores.known(root, kept, table.column("key"), table.column("text")))
    ads = sorted(int(ad) for _, _, places, _ in hits for ad in places)
    assert ads == [*range(150), *range(200, 260)], "each once"
    scripts = {s for _, _, _, found in hits for s in found}
    assert scripts == {"", *map(str, range(many - 1))}
    # A kill between the blocks and the note that they replace others doubles nothing.
    [note] = (path for path in tmp_path.rglob("merged-*.json"))
    assert sorted(json.loads(note.read_bytes())) == sorted(p.rsplit("/", 1)[1] for p in small)
    note.unlink()
    assert scores.compact(root, scores.blocks_of(root, "key", ""), 100) == kept


def test_a_sample_of_texts_is_uniform_and_does_not_depend_on_the_cut(tmp_path: Path) -> None:
    rows = scored_rows(np.arange(300, dtype=np.float32))
    drawn = []
    for name, cuts in (("a", [rows]), ("b", [rows.slice(n, 30) for n in range(0, 300, 30)])):
        root = tmp_path / name
        manifest = committed(root, write_scored_blocks(root, cuts)[::-1], shards=len(cuts))
        texts, margins = scores.sample(Workspace(str(root)), manifest, 50, seed=3)
        drawn.append(texts)
        of = dict(
            zip(rows.column("text").to_pylist(), rows.column("margin").to_pylist(), strict=True)
        )
        assert margins.tolist() == [of[text] for text in texts]
    assert drawn[0] == drawn[1]
    keys = rows.column("key").to_pylist()
    lowest = hashing.lowest_ranks(keys, 50, 3)
    assert set(drawn[0]) == {rows.column("text")[int(i)].as_py() for i in lowest}
    place = Workspace(str(root))
    assert drawn[0] != scores.sample(place, manifest, 50, seed=4)[0]
    everything, _ = scores.sample(place, manifest, 5000, seed=3)
    assert sorted(everything) == sorted(rows.column("text").to_pylist())


def test_a_sample_reads_so_many_blocks_and_no_more(tmp_path: Path) -> None:
    rows = scored_rows(np.zeros(300, dtype=np.float32))
    cut = write_scored_blocks(tmp_path, [rows.slice(n, 10) for n in range(0, 300, 10)])
    manifest = committed(tmp_path, cut)
    with watched_reads() as paths:
        drawn, _ = scores.sample(Workspace(str(tmp_path)), manifest, 5000, seed=3)
    assert len(drawn) == 160
    assert len({path for path in paths if path.endswith(".parquet")}) == 16
