"""A round's tables in BigQuery, through Beam's own loads, against a fake of it and Cloud Storage's emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import api, cli
from pipelines.errors import UsageError
from pipelines.stages.publish_round import COLUMNS
from pipelines.store import storage
from pipelines.store.workspace import Workspace
from tests import bigquery_server, helpers
from tests.bigquery_server import BigQueryServer
from tests.engines import faulty_storage

ROOT, TO = "gs://scout/w", "bq://project.ads"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BigQueryServer]:
    with faulty_storage.served("scout"), bigquery_server.served() as fake:
        helpers.run(
            helpers.write_task(tmp_path),
            helpers.write_jsonl(tmp_path / "a.jsonl", helpers.tiny_ads()),
            ROOT,  # type: ignore[arg-type]
        )
        yield fake


def test_a_round_as_two_tables(server: BigQueryServer, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["publish", "--workspace", ROOT, "--to", TO, "--project", "project", "--quiet"]
    assert cli.main([*command, "--json"]) == cli.OK
    told = json.loads(capsys.readouterr().out)
    pairs = Workspace(ROOT).pairs_of(1)
    ending = f"r0001_{pairs.config_hash[:8]}"
    names = [f"project.ads.tiny_{kind}_{ending}" for kind in ("scores", "pairs")]
    assert (told["task"], told["round"], told["tables"]) == ("tiny", 1, names)
    scores, shown = (server.tables[name] for name in names)
    assert (scores.columns, shown.columns) == (
        list(COLUMNS["scores"]),
        list(COLUMNS["pairs"]),
    )
    rows = {row["id"]: row for row in scores.rows}
    assert rows.keys() == {ad["id"] for ad in helpers.tiny_ads()}
    positive = [row for row in rows.values() if row["label"] == "positive"]
    assert len(positive) == pairs.facts.threshold.n_positive
    assert min(row["margin"] for row in positive) >= pairs.facts.threshold.margin
    assert rows["t0000"]["weight"] == rows["t0000"]["copies"] == 1
    items = Workspace(ROOT).read_items(pairs)
    assert len(shown.rows) == sum(len(item.ads) for item in items)
    assert [(row["item_id"], row["side"], row["id"]) for row in shown.rows] == [
        (item.item_id, side, ad.id) for item in items for side, ad in item.sides()
    ]
    for row in shown.rows:
        # Both tables agree, and whatever is null is left out of neither.
        assert row.keys() == {name for name, _ in COLUMNS["pairs"]}
        for name in ("margin", "label", "text", "probability", "key", "weight"):
            assert row[name] == rows[row["id"]][name]
    # Again, the same lies in its own place.
    before = {name: list(server.tables[name].rows) for name in names}
    assert cli.main([*command, "--tables", "scores"]) == cli.OK
    assert sorted(map(str, server.tables[names[0]].rows)) == sorted(map(str, before[names[0]]))
    # Nothing of what was loaded is left on Cloud Storage.
    assert not storage.match(f"{ROOT}/tmp/**")


def test_what_is_refused(server: BigQueryServer, tmp_path: Path) -> None:
    for to in ("bq://ads", "project.ads", "gs://bucket/ads"):
        with pytest.raises(UsageError, match=r"is no dataset; give bq://PROJECT\.DATASET"):
            api.publish(ROOT, to)
    with pytest.raises(UsageError, match="no 'ads'; choose of pairs, scores"):
        api.publish(ROOT, TO, tables=["ads"])
    with pytest.raises(UsageError, match="round 2: has no pairs"):
        api.publish(ROOT, TO, round=2)
    helpers.run(helpers.write_task(tmp_path), tmp_path / "a.jsonl", tmp_path / "w", block_rows=100)
    with pytest.raises(UsageError, match="BigQuery loads from Cloud Storage alone; give temp_loc"):
        api.publish(str(tmp_path / "w"), TO)
    assert not server.tables
