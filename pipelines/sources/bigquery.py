"""The source ``bq``: tables of BigQuery, some rows of them, and queries.

``bq://PROJECT.DATASET.TABLE``, the same with `` WHERE …`` behind it, or ``bq://SELECT …``. The workers read
through Beam's connector, by the Storage Read API. The launcher asks for schema and state, and reads a few
rows where a command needs them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.sources.base import Listed, Range, ReadOptions, Source
from pipelines.sources.records import Place, check_columns, to_ad
from pipelines.text import digest

_SCHEME = "bq://"
_TABLE = re.compile(
    r"([\w.:-]+)\.([\w-]+)\.([\w-]+)(?:\s+WHERE\s+(.+))?", re.IGNORECASE | re.DOTALL
)
_QUERY = re.compile(r"\s*(SELECT\b|WITH\b|FROM\b|\()", re.IGNORECASE)
# What the Storage Read API reads; the rest it refuses when the job runs.
_READABLE = ("TABLE", "SNAPSHOT", "CLONE")
# Streams of which the launcher takes a row each in turn, so that a few rows are not a table's first ones.
_STREAMS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """What a ``--corpus`` value names.

    Attributes:
        project, dataset, table: of a table; "" with a query.
        where: which rows of it; "" for all.
        query: in GoogleSQL; "" with a table.
    """

    project: str = ""
    dataset: str = ""
    table: str = ""
    where: str = ""
    query: str = ""

    @property
    def name(self) -> str:
        """The table's full name."""
        return f"{self.project}.{self.dataset}.{self.table}"


def asked_by(pattern: str) -> Asked:
    """Return what a ``--corpus`` value names.

    Raises:
        UsageError: it is neither a table nor a query.
    """
    said = pattern.removeprefix(_SCHEME).strip()
    if found := _TABLE.fullmatch(said):
        return Asked(found[1], found[2], found[3], (found[4] or "").strip())
    if _QUERY.match(said):
        return Asked(query=said)
    raise UsageError(
        f"--corpus {pattern}: is neither a table nor a query; give bq://PROJECT.DATASET.TABLE, some rows "
        "of it (bq://PROJECT.DATASET.TABLE WHERE dt = '2026-11-21'), or bq://SELECT …"
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What BigQuery says of a table or of a query's answer.

    Attributes:
        bytes: of the table, or what the query reads.
        state: when the tables behind it were last written to.
        columns: names, with those inside records as dotted paths.
    """

    bytes: int
    state: str
    columns: tuple[str, ...]


class BigQuery(Source):
    """Tables and queries of BigQuery."""

    name = "bq"

    def list_items(self, pattern: str) -> Iterator[Listed]:
        """Yield the table or the query: one thing."""
        known = self._known(pattern)
        # What is stored holds for a table's rows, too: nothing is read to tell whether they changed.
        yield Listed(self.name, pattern, max(known.bytes, 1), known.state, known.state)

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> Iterator[Range]:
        """Keep it whole: Beam's connector cuts it; refuses what lacks a column."""
        known = self._known(item.place)
        try:
            check_columns(item.place, known.columns, options, known.columns.__contains__)
        except RunFailed as error:
            raise UsageError(f"--corpus {error.message}") from error
        asked = asked_by(item.place)
        if asked.where:
            # Whether the condition is one is told by nothing else; nothing is read.
            with _answering(item.place):
                _session(asked, (), 1)
        yield Range(self.name, item.place, "", 0, -1, item.bytes, version=item.version)

    def read(self, part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
        """Yield the rows in this process: for the launcher's few looks."""
        asked = asked_by(part.place)
        with _answering(part.place):
            columns = _wanted(self._known(part.place).columns, options)
            rows = _answer(asked.query) if asked.query else _rows(asked, columns)
            yield from (_record(row, part.place, options) for row in rows)

    def reading(self, patterns: Sequence[str], options: ReadOptions) -> beam.PTransform:
        """Return Beam's own connector for each value."""
        tables = []
        for pattern in patterns:
            columns = _wanted(self._known(pattern).columns, options)
            tables.append((pattern, asked_by(pattern), columns))
        return _Connect(tables, options)

    def _known(self, pattern: str) -> Known:
        asked = asked_by(pattern)
        with _answering(pattern):
            client = _client()
            if not asked.query:
                return _of_table(client.get_table(asked.name), pattern)
            from google.cloud.bigquery import QueryJobConfig

            job = client.query(asked.query, QueryJobConfig(dry_run=True, use_query_cache=False))
            tables = [client.get_table(table) for table in job.referenced_tables or ()]
            state = sorted((table.full_table_id, str(table.modified)) for table in tables)
            columns = tuple(_paths(job.schema or ()))
            return Known(job.total_bytes_processed or 0, digest(json.dumps(state)), columns)


class _Connect(beam.PTransform):
    """Read tables and queries: a pipeline to ``PCollection[Ad | Rejected]``.

    Args:
        tables: (``--corpus`` value, what it names, columns to read) of each.
        options: how rows become ads.
    """

    def __init__(
        self, tables: Sequence[tuple[str, Asked, tuple[str, ...]]], options: ReadOptions
    ) -> None:
        super().__init__()
        self._tables, self._options = tables, options

    def expand(self, begin: Any) -> beam.PCollection[Ad | Rejected]:
        """Apply the transform to a pipeline."""
        from apache_beam.io.gcp.bigquery import ReadFromBigQuery
        from apache_beam.options.pipeline_options import GoogleCloudOptions

        project = begin.pipeline.options.view_as(GoogleCloudOptions).project
        records = []
        for number, (pattern, asked, columns) in enumerate(self._tables, start=1):
            settings: dict[str, Any] = {"selected_fields": list(columns) or None}
            if not asked.query:
                settings["table"] = f"{asked.project}:{asked.dataset}.{asked.table}"
                settings["row_restriction"] = asked.where or None
            elif project:
                settings |= {"query": asked.query, "use_standard_sql": True}
            else:
                raise UsageError(
                    f"--corpus {pattern}: a query's answer is kept in a project of yours while it is read; "
                    "give --project"
                )
            rows = begin | f"Connect{number}" >> ReadFromBigQuery(
                method=ReadFromBigQuery.Method.DIRECT_READ, **settings
            )
            records.append(rows | f"ToAds{number}" >> beam.Map(_record, pattern, self._options))
        # Behind a Flatten the in-memory runner holds every ad once more.
        return records[0] if len(records) == 1 else records | "Join" >> beam.Flatten()


def _of_table(table: Any, pattern: str) -> Known:
    if table.table_type not in _READABLE:
        kind = str(table.table_type).replace("_", " ").lower()
        raise UsageError(
            f"--corpus {pattern}: is a {kind}, which only a query reads: give bq://SELECT …, with its "
            f"columns and `{asked_by(pattern).name}`"
        )
    return Known(table.num_bytes or 0, str(table.modified), tuple(_paths(table.schema)))


def _paths(fields: Iterable[Any], before: str = "") -> Iterator[str]:
    for field in fields:
        yield f"{before}{field.name}"
        yield from _paths(field.fields, f"{before}{field.name}.")


def _wanted(columns: Sequence[str], options: ReadOptions) -> tuple[str, ...]:
    """Return the columns that must be read, none of them inside another; () for all."""
    if options.whole:
        return ()
    paths = (*options.text_paths, options.id_path, options.weight_field)
    there = sorted({path for path in paths if path in columns})
    return tuple(p for p in there if not any(p.startswith(f"{other}.") for other in there))


def _record(row: Mapping[str, Any], place: str, options: ReadOptions) -> Ad | Rejected:
    """Return the ad of a row. Rows have no numbers: one is told by what it holds."""
    raw = json.dumps(row, default=str, ensure_ascii=False)
    return to_ad(row, options, Place(place, f"row {digest(raw)[:12]}", raw))


def _answer(query: str) -> Iterator[Mapping[str, Any]]:
    return (dict(row.items()) for row in _client().query_and_wait(query))


def _session(asked: Asked, columns: Sequence[str], streams: int) -> tuple[Any, Any]:
    """Return a client of the Storage Read API, and a session of it."""
    from google.cloud import bigquery_storage_v1
    from google.cloud.bigquery_storage_v1 import types

    wanted = types.ReadSession(
        table=f"projects/{asked.project}/datasets/{asked.dataset}/tables/{asked.table}",
        data_format=types.DataFormat.AVRO,
        read_options={"selected_fields": columns, "row_restriction": asked.where},
    )
    client = bigquery_storage_v1.BigQueryReadClient()
    return client, client.create_read_session(
        parent=f"projects/{asked.project}", read_session=wanted, max_stream_count=streams
    )


def _rows(asked: Asked, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    client, session = _session(asked, columns, _STREAMS)
    streams = [iter(client.read_rows(stream.name).rows()) for stream in session.streams]
    while streams:
        for stream in list(streams):
            row = next(stream, None)
            if row is None:
                streams.remove(stream)
            else:
                yield row


def _client() -> Any:
    from google.cloud import bigquery

    return bigquery.Client()


@contextlib.contextmanager
def _answering(pattern: str) -> Iterator[None]:
    """Tell what BigQuery complains of.

    Raises:
        UsageError: there is no such table, the query is none, or we may not read it.
        RunFailed: it does not answer.
    """
    from google.api_core.exceptions import ClientError, GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except ClientError as error:
        raise UsageError(
            f"--corpus {pattern}: BigQuery refuses it ({error.message}); look at the name, the columns and "
            "your permissions"
        ) from error
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise RunFailed(
            f"{pattern}: BigQuery does not answer ({type(error).__name__}: {error}); look at your "
            "credentials (`gcloud auth application-default login`) and the network"
        ) from error
