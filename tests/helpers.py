"""What several tests share: tiny corpora, tasks with the fake labeler, runs in a workspace."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.contracts import UniqueAd
from pipelines.mine import Mined, mine
from pipelines.options import MineOptions
from pipelines.readers import ReadOptions
from pipelines.text import content_key

FAKE_TASK = """\
name: tiny
version: 1
policy: Ads that promise what nobody can promise.
question: Is it misleading?
prior: 0.2
model: {preset: fake}
selection: {budget: 12}
"""

_GOODS = [
    "kettle",
    "bicycle",
    "sofa",
    "lamp",
    "guitar",
    "tent",
    "raincoat",
    "notebook",
    "blender",
    "mattress",
]
_PLACES = ["Harbour Street", "the old mill", "Elm Square", "platform nine", "the covered market"]
_HONEST = (
    "A sturdy {good} from {place}, repaired for ten years, price {n} on the tag",
    "{good} lessons at {place} every second Thursday, terms at the desk, group of {n}",
    "The museum shop at {place} has one {good} left, number {n}",
    "Second-hand {good}, slightly scratched, {n} euros, pick up at {place}",
)
_LOUD = (
    "You won this {good}! Guaranteed winner number {n}, claim it free at {place}",
    "{n} shocking reasons why you need this miracle {good} from {place}!!",
    "Secret {good} trick they hide at {place}: you will not believe number {n}",
    "FREE {good}!!! Urgent, guaranteed, {n} left at {place}",
)


def tiny_ads(number: int = 200, seed: int = 7) -> list[dict[str, Any]]:
    """Return distinct ads, about a quarter of them loud."""
    rng = random.Random(seed)
    ads: dict[str, dict[str, Any]] = {}
    while len(ads) < number:
        form = rng.choice(_LOUD if rng.random() < 0.25 else _HONEST)
        text = form.format(
            good=rng.choice(_GOODS), place=rng.choice(_PLACES), n=rng.randrange(2, 400)
        )
        ads.setdefault(text, {"id": f"t{len(ads):04d}", "text": text})
    return list(ads.values())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_task(folder: Path, text: str = FAKE_TASK) -> Path:
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def options(task: Path, corpus: str | Path, workspace: Path, **changes: Any) -> MineOptions:
    settings: dict[str, Any] = {
        "task": str(task),
        "corpus": (str(corpus),),
        "workspace": str(workspace),
        "date": "",
        "budget": None,
        "read": ReadOptions(),
        "max_rejected_share": 0.01,
        "block_rows": 64,
        "range_bytes": 1 << 20,
        "beam": (),
    }
    return MineOptions(**{**settings, **changes})


def run(task: Path, corpus: str | Path, workspace: Path, **changes: Any) -> Mined:
    return mine(options(task, corpus, workspace, **changes), say=lambda line: None, quiet=True)


def pairs_bytes(mined: Mined) -> bytes:
    return Path(mined.summary["pairs_file"]).read_bytes()


def unique_ad(text: str, id: str = "", weight: int = 1000, copies: int = 1) -> UniqueAd:
    key = content_key(text)
    return UniqueAd(id or f"id-{key[:8]}", key, text, weight, copies, "f", "line 1")
