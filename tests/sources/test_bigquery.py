"""BigQuery against a fake of it on this machine: what a value names, what is read, what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.errors import UsageError
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.sources import bigquery
from pipelines.sources.base import ReadOptions
from pipelines.sources.survey import survey
from pipelines.stages.read_ads import ADS, REJECTED, ReadAds
from tests.bigquery_server import BigQueryServer, Table, served
from tests.sources import reasons, records, texts

COLUMNS = [("id", "STRING"), ("text", "STRING"), ("spend", "FLOAT"), ("other", "STRING")]
ROWS = [{"id": f"r{n}", "text": f"ad {n}", "spend": n / 2, "other": "x"} for n in range(50)]
TABLE = "bq://project.shop.ads"
WHERE = "spend > 20 AND other = 'x'"
QUERY = "SELECT id, text FROM `project.shop.ads` LIMIT 3"


@pytest.fixture
def server() -> Iterator[BigQueryServer]:
    with served() as fake:
        fake.tables["project.shop.ads"] = Table(COLUMNS, [*ROWS, {"id": "r50", "text": " "}])
        fake.conditions[WHERE] = lambda row: row.get("spend", 0) > 20
        fake.queries[QUERY] = ("project.shop.ads", Table(COLUMNS[:2], list(ROWS[:3])))
        yield fake


def test_what_a_value_names() -> None:
    asked = bigquery.asked_by
    assert asked("bq://my-project.shop.ads") == bigquery.Asked("my-project", "shop", "ads")
    assert asked("bq://example.com:p.d.t-1").project == "example.com:p"
    found = asked("bq://p.d.t where dt = '2026-11-21'\n AND n > 3")
    assert (found.name, found.where) == ("p.d.t", "dt = '2026-11-21'\n AND n > 3")
    assert asked(f"bq://{QUERY}").query == QUERY
    assert asked("bq://with a as (select 1) select * from a").query.startswith("with a")
    for wrong in ("bq://shop.ads", "bq://", "bq://p.d.t LIMIT 3", "bq://DROP TABLE p.d.t"):
        with pytest.raises(UsageError, match="is neither a table nor a query; give bq://PROJECT"):
            asked(wrong)


def read_by_beam(pattern: str, options: ReadOptions, *flags: str) -> list[str]:
    """Read through the main job's first stage; returns the texts, checked as they come."""
    pipeline = TestPipeline(runner=DEFAULT_RUNNER, options=PipelineOptions(flags))
    found = pipeline | ReadAds([pattern], options)
    expected = records([pattern], options)
    ads = [record for record in expected if hasattr(record, "text")]
    assert_that(found[ADS] | beam.FlatMap(list), equal_to(ads), label="ads")
    bad = found[REJECTED] | beam.Map(lambda record: (record.reason, record.position))
    assert_that(bad, equal_to(reasons(expected)), label="bad")
    pipeline.run().wait_until_finish()
    return texts(expected)


def test_a_table_through_beams_own_connector(server: BigQueryServer) -> None:
    options = ReadOptions(weight_field="spend")
    found = records([TABLE], ReadOptions(weight_field="spend"))
    assert {record.source for record in found} == {TABLE}
    assert sorted(texts(found)) == sorted(str(row["text"]) for row in ROWS)
    assert [reason for reason, _ in reasons(found)] == ["empty_text"]
    # A few rows are not a table's first ones.
    assert texts(found[:3]) == ["ad 0", "ad 17", "ad 34"]
    server.sessions.clear()
    assert len(read_by_beam(TABLE, options)) == 50
    # What nobody needs is not read.
    for session in server.sessions:
        assert list(session.read_options.selected_fields) == ["id", "spend", "text"]


def test_some_rows_of_a_table(server: BigQueryServer) -> None:
    found = read_by_beam(f"{TABLE} WHERE {WHERE}", ReadOptions(id_field="none"))
    assert sorted(found) == sorted(f"ad {n}" for n in range(41, 50))
    assert {session.read_options.row_restriction for session in server.sessions} == {WHERE}


def test_a_query(server: BigQueryServer) -> None:
    assert read_by_beam(f"bq://{QUERY}", ReadOptions(), "--project=project") == [
        *("ad 0", "ad 1", "ad 2")
    ]
    # Its answer was kept for the readers, and cleared away behind them.
    assert any(ask.startswith("POST /bigquery/v2/projects/project/jobs") for ask in server.asked)
    with pytest.raises(UsageError, match=r"a query's answer is kept in a project of yours .* give"):
        _ = TestPipeline(runner=DEFAULT_RUNNER) | ReadAds([f"bq://{QUERY}"], ReadOptions())


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("bq://project.shop.none", {}, r"BigQuery refuses it \(.*Not found: project.shop.none"),
        ("bq://SELECT nothing", {}, r"BigQuery refuses it \(.*Syntax error: SELECT nothing"),
        (f"{TABLE} WHERE colour = 3", {}, "refuses it .*Unrecognized name: colour = 3"),
        (TABLE, {"text_field": "headline"}, "no column 'headline'; its columns are id, text, sp"),
        (
            "bq://project.shop.view",
            {},
            r"is a view, which only a query reads: give bq://SELECT …, .*`project.shop.view`",
        ),
    ],
)
def test_what_is_refused_before_a_job_begins(
    pattern: str, options: dict[str, str], message: str, server: BigQueryServer
) -> None:
    server.tables["project.shop.view"] = Table(COLUMNS, [], type="VIEW")
    with pytest.raises(UsageError, match=message):
        survey([pattern], ReadOptions(**options), 1 << 20)  # type: ignore[arg-type]


def test_a_table_that_was_written_to_has_changed(server: BigQueryServer) -> None:
    def fingerprint(pattern: str) -> str:
        return survey([pattern], ReadOptions(), 1, fingerprinted=True).fingerprint

    before = [fingerprint(pattern) for pattern in (TABLE, f"bq://{QUERY}")]
    assert before == [fingerprint(pattern) for pattern in (TABLE, f"bq://{QUERY}")]
    server.tables["project.shop.ads"].modified += 1
    after = [fingerprint(pattern) for pattern in (TABLE, f"bq://{QUERY}")]
    assert not set(before) & set(after)
