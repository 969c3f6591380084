"""The sample corpus is what the README says it is."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

SAMPLES = Path(__file__).resolve().parent.parent / "templates" / "samples"


def rows(name: str) -> list[dict]:
    lines = (SAMPLES / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def masked(text: str) -> str:
    """Blank what slot filling changes: case, numbers, punctuation, emoji."""
    folded = re.sub(r"\d+", "0", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(re.findall(r"\w+", folded))


def test_enough_distinct_ads_of_enough_kinds() -> None:
    ads = rows("ads.jsonl")
    gold = {row["id"]: row for row in rows("gold.jsonl")}
    assert set(gold) == {ad["id"] for ad in ads}
    own = [ad for ad in ads if "near_duplicate_of" not in gold[ad["id"]]]
    assert len({masked(ad["text"]) for ad in own}) == len(own) >= 1500
    assert len({ad["vertical"] for ad in ads}) >= 15
    assert len(ads) - len(own) >= 40, "near-duplicates on purpose"
    scripts = Counter(
        unicodedata.name(char, "?").split()[0]
        for ad in ads
        for char in set(ad["text"])
        if char.isalpha()
    )
    used = ("CYRILLIC", "ARABIC", "HEBREW", "DEVANAGARI", "HIRAGANA", "HANGUL", "GREEK", "THAI")
    assert all(scripts[script] >= 5 for script in used)
    shouting = [ad for ad in own if ad["text"].isupper() and len(ad["text"]) > 20]
    assert len(shouting) >= 40
    emoji = [ad for ad in own if any(unicodedata.category(char) == "So" for char in ad["text"])]
    assert len(emoji) >= 150


def test_about_four_percent_violate_in_grades() -> None:
    gold = rows("gold.jsonl")
    positives = [row for row in gold if row["label"] == "positive"]
    assert 0.035 <= len(positives) / len(gold) <= 0.05
    assert Counter(row["grade"] for row in positives).keys() == {"blatant", "clear", "subtle"}
    assert min(Counter(row["grade"] for row in positives).values()) >= 20
    assert sum(row["grade"] == "hard" for row in gold) >= 150


def test_the_demo_says_how_many_ads_deceive() -> None:
    gold = rows("gold.jsonl")
    positives = sum(row["label"] == "positive" for row in gold)
    told = (SAMPLES.parent / "console" / "demo.txt").read_text()
    assert f"{positives} of the {len(gold):,} sample ads set out to deceive" in told


def test_the_main_job_cannot_see_the_labels() -> None:
    assert {key for ad in rows("ads.jsonl") for key in ad} == {"id", "text", "vertical"}
    source = Path(__file__).resolve().parent.parent
    # A simulation is told by its user where labels are; nothing else knows of any.
    told = {"pipelines/api.py", "pipelines/options.py", "pipelines/numerics/raters.py"}
    # It knows what columns with labels are called, so as not to take one for the text.
    told.add("pipelines/jobs/columns.py")
    for path in [*source.glob("pipelines/**/*.py"), *source.glob("models/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "gold.jsonl" not in text, path
        name = path.relative_to(source).as_posix()
        if name not in told and not name.startswith("pipelines/simulation/"):
            assert "gold" not in text.replace("golden", ""), path


def test_near_duplicates_point_at_ads_and_have_their_label() -> None:
    gold = {row["id"]: row for row in rows("gold.jsonl")}
    for row in gold.values():
        if "near_duplicate_of" in row:
            assert gold[row["near_duplicate_of"]]["label"] == row["label"]
