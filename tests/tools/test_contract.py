"""The contract of a labeling tool, checked for every tool of the registry, and by a tool of 30 lines."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import cli
from pipelines.contracts import Rejected
from pipelines.errors import RunFailed
from pipelines.store.workspace import Workspace
from pipelines.tools import incoming, outgoing, registry
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch
from pipelines.tools.incoming import Answer
from pipelines.verdicts.rows import RawVerdict
from tests import helpers
from tests.tools import FIELDS, SAMPLES, batch_of, check_blind, sample, understood
from tests.tools.players import ROUTES

READING, WRITING = registry.names(), registry.exporting()
HOSTILE = [
    (f"id {n} <b>", f"{text} {n}")
    for n, text in enumerate(
        (
            "</script><script>alert(1)</script>",
            "=cmd|'/c calc'!A1",
            "$text_a $policy {{ad}}",
            "a\0b \u202egnp.exe",
            "\U000e0041 \ud83d\ude00 \u2028next",
            '"; DROP TABLE ads; --',
        )
    )
]
SIZES = {"pairs": (2, 2, 2), "single": (1,) * 6, "mixed": (1, 2, 2, 1)}


def batches() -> Iterator[Any]:
    for name, sizes in SIZES.items():
        yield pytest.param({"sizes": sizes}, id=name)
        yield pytest.param({"sizes": sizes, "fields": FIELDS}, id=f"{name}-fields")


@pytest.mark.parametrize("made", batches())
@pytest.mark.parametrize("name", WRITING)
def test_every_kind_of_batch_is_exported(name: str, made: dict[str, Any]) -> None:
    tool, batch = registry.get(name), batch_of(HOSTILE, **made)
    files = tool.export(batch)
    assert files and files == tool.export(batch_of(HOSTILE, **made)), "the same batch, other bytes"
    for file in files:
        assert any(fnmatch.fnmatchcase(file, pattern) for pattern in tool.files), file
    everything = b"\n".join(files.values()).decode()
    for item in batch.items:
        assert item.item_id in everything
    check_blind(files)
    assert "0.6180339" not in everything, "what the strategy ranked by"
    assert "[[" not in everything.replace('[["', ""), "a template's mark"
    if tool.shows_fields and "fields" in made:
        # Each of six ads has both fields apart, each with its name.
        assert len(re.findall(r"Headline(: |\",\")Win ", everything)) == 6
    shown = tool.export(batch_of(HOSTILE, shown=True, **made))
    told = re.search(r"0\.8137", b"".join(shown.values()).decode())
    assert bool(told) == tool.shows_predictions


@pytest.mark.parametrize("name", WRITING)
def test_pairs_are_together_or_follow_each_other(name: str) -> None:
    everything = b"\n".join(registry.get(name).export(batch_of()).values()).decode()
    first = batch_of().items[0].item_id
    together = registry.get(name).shows_pairs_together
    # Argilla's records have it twice, as their own id and as metadata.
    assert everything.count(first) == (2 if name == "argilla" or not together else 1)


def test_every_tool_that_is_exported_for_is_played_and_has_recorded_answers() -> None:
    assert {route.tool for route in ROUTES.values()} == set(WRITING)
    assert {path.name for path in SAMPLES.iterdir() if path.is_dir()} == set(WRITING)


@pytest.mark.parametrize("name", WRITING)
def test_what_to_do_next_names_the_way_back(name: str) -> None:
    tool = registry.get(name)
    step = tool.next_step("runs/my spring")
    assert "`scout import FILE..." in step and step.count("--workspace 'runs/my spring'`") == 1
    # By its name, unless its files are known as its own.
    assert (f"--tool {name}" in step) != tool.recognizes("review.csv", b"format: " + b"") or (
        name == "page"
    )
    assert ("setup.md" in step) == ("setup.md" in tool.files)


@pytest.mark.parametrize("name", registry.served())
def test_a_server_is_named_and_imported_only_when_used(name: str) -> None:
    tool = registry.get(name)
    assert tool.access and tool.access.key and tool.server.startswith("pipelines.tools.")
    with (
        pytest.raises(Exception, match=f"{tool.access.key}: is not set"),
        tool.connect("https://x", {}),
    ):
        pass


@pytest.mark.parametrize("name", READING)
@settings(max_examples=60, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=80), st.text(max_size=80).map(lambda s: s.encode("utf-8", "replace"))
    )
)
def test_any_bytes_give_rows_or_a_clear_error(name: str, data: bytes) -> None:
    starts = (b"", b"[", b'[{"data": {"item_id": "p"}, "annotations": [', b'{"answer": ', b"PK\3\4")
    for start in starts:
        assert rows_or_words(registry.get(name), start + data)


@pytest.mark.parametrize("name", WRITING)
@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_damaged_answers_give_rows_or_a_clear_error(
    name: str, cut: int, place: int, byte: int
) -> None:
    route = next(route for route in ROUTES.values() if route.tool == name)
    data = bytearray(route.through(batch_of(HOSTILE + HOSTILE[:2]))[0])
    data[place % len(data)] = byte
    assert rows_or_words(registry.get(name), bytes(data[: len(data) - cut % 200]))


def rows_or_words(tool: Tool, data: bytes) -> bool:
    try:
        return all(isinstance(row, RawVerdict | Rejected) for row in tool.read(data, "f"))
    except RunFailed as error:
        return error.message.startswith("f: ")


# --- a tool of one's own ----------------------------------------------------------------------


class Cards(Tool):
    """Index cards: a JSON file in which experts write the labels between the brackets."""

    name = "cards"
    files = ("cards.json",)
    filled_in = files
    shows_predictions = False

    def export(self, batch: Batch) -> dict[str, bytes]:
        cards = [
            {**outgoing.item_fields(item, outgoing.slots_of(part)), "labels": [], "name": ""}
            for part in batch.by_size()
            for item in part.items
        ]
        return {"cards.json": outgoing.to_json(cards)}

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        def rows(card: Any, position: str) -> tuple[RawVerdict, ...]:
            labels = tuple(card["labels"])
            if len(labels) not in (0, len(incoming.slots_in(card))):
                raise ValueError("write a label for each ad of the card")
            name = incoming.as_text(card, "name")
            return Answer(source, position, labels, name, submitted=bool(name)).rows(card)

        cure = "expected cards with labels"
        return incoming.read_records(data, source, lambda card: "labels" in card, cure, rows)


def scout(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main([str(word) for word in argv])
    return status, *capsys.readouterr()


def test_a_tool_of_30_lines_goes_the_whole_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    helpers.run(helpers.write_task(tmp_path), corpus, tmp_path / "w")
    place, out = ("--workspace", tmp_path / "w"), tmp_path / "out"
    with registry.registered(Cards()):
        status, told, _ = scout(capsys, "export", *place, "--tool", "cards", "--out", out)
        assert status == cli.OK and "12 pairs" in told
        assert f"by `scout import FILE... --tool cards --workspace {tmp_path / 'w'}`" in told
        path = out / "cards.json"
        cards = json.loads(path.read_text())
        for card in cards[:6]:
            card |= {"labels": ["positive", "negative"], "name": "Anna"}
        cards[6] |= {"labels": ["positive"], "name": "Anna"}
        cards[7] |= {"name": "Anna"}
        path.write_text(json.dumps(cards))
        # Nobody wipes what somebody wrote.
        status, _, err = scout(capsys, "export", *place, "--tool", "cards", "--out", out)
        assert status == cli.WRONG_USAGE and "somebody may have filled it in" in err
        status, told, _ = scout(capsys, "import", path, *place, "--tool", "cards", "--json")
        found = json.loads(told)
        assert status == cli.OK
        assert (found["verdicts"], found["skips"], found["experts"]) == (14, 2, ["anna"])
        assert found["rejected_by_reason"] == {"not_readable_row": 1}
        assert found["unanswered"] == 8
        for flag in ("--push", "--show_predictions"):
            words = (flag, "http://127.0.0.1:1") if flag == "--push" else (flag,)
            status, _, err = scout(capsys, "export", *place, "--tool", "cards", *words)
            assert status == cli.WRONG_USAGE and flag in err
    status, _, err = scout(capsys, "import", path, *place, "--tool", "cards")
    assert status == cli.WRONG_USAGE and "--tool cards: unknown" in err
    assert Workspace(str(tmp_path / "w")).latest(1, "verdicts")


def test_its_single_ads_come_back() -> None:
    batch = batch_of(HOSTILE, sizes=SIZES["mixed"], fields=FIELDS)
    cards = json.loads(Cards().export(batch)["cards.json"])
    for card in cards:
        card |= {"labels": ["bait"] * (2 if "text_a" in card else 1), "name": "Bo"}
    resolved = understood(Cards().read(json.dumps(cards).encode(), "f"), batch)
    assert resolved.rejected == () and len(resolved.verdicts) == 6


def test_recorded_answers_have_the_old_name_of_an_item() -> None:
    # Answers of an earlier version, and of people's own, say pair_id.
    recorded = [path for path in SAMPLES.rglob("*") if "answers" in path.name]
    assert len(recorded) >= 4
    for path in recorded:
        data = sample(str(path.relative_to(SAMPLES)))
        rows = [*registry.get(path.parent.name).read(data, path.name)]
        assert rows and not any(isinstance(row, Rejected) for row in rows)
