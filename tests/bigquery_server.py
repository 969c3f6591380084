"""BigQuery as far as tests need it: REST and the Storage Read API on this machine, tables in memory.

A condition or a query is known by its text. Load jobs take what was put on Cloud Storage's emulator.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fastavro
import grpc
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.io.gcp.internal.clients.bigquery import bigquery_v2_client
from google.auth import credentials
from google.cloud import bigquery_storage_v1
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from pipelines.store import storage

_AVRO = {"STRING": "string", "INTEGER": "long", "FLOAT": "double", "BOOLEAN": "boolean"}
_SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
Row = Mapping[str, Any]


@dataclass
class Table:
    """A table: its columns (name, type), and its rows."""

    columns: Sequence[tuple[str, str]]
    rows: list[Row]
    type: str = "TABLE"
    modified: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def schema(self) -> dict[str, Any]:
        return {"fields": [{"name": name, "type": kind} for name, kind in self.columns]}

    def resource(self, name: str) -> dict[str, Any]:
        project, dataset, table = name.rsplit(".", 2)
        reference = {"projectId": project, "datasetId": dataset, "tableId": table}
        return {
            "kind": "bigquery#table",
            "id": f"{project}:{dataset}.{table}",
            "tableReference": reference,
            "schema": self.schema(),
            "type": self.type,
            "numBytes": str(sum(len(json.dumps(row)) for row in self.rows)),
            "numRows": str(len(self.rows)),
            "lastModifiedTime": str(self.modified),
            "location": "EU",
        }


class BigQueryServer:
    """What the fake holds, and what it was asked."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.conditions: dict[str, Callable[[Row], bool]] = {}
        self.queries: dict[str, tuple[str, Table]] = {}
        self.sessions: list[types.ReadSession] = []
        self.asked: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self._streams: dict[str, tuple[Table, Sequence[str], list[Row]]] = {}

    # --- Storage Read API ---

    def create_read_session(
        self, request: types.CreateReadSessionRequest, context: grpc.ServicerContext
    ) -> types.ReadSession:
        wanted = request.read_session
        self.sessions.append(wanted)
        table = self.tables[".".join(wanted.table.split("/")[1::2])]
        condition = wanted.read_options.row_restriction
        if condition and condition not in self.conditions:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized name: {condition}")
        rows = [row for row in table.rows if not condition or self.conditions[condition](row)]
        columns = list(wanted.read_options.selected_fields) or [name for name, _ in table.columns]
        number = min(request.max_stream_count or 2, 3)
        session = types.ReadSession(name=f"s{len(self.sessions)}", table=wanted.table)
        session.avro_schema.schema = self._avro(table, columns)
        session.data_format = types.DataFormat.AVRO
        for stream in range(number):
            name = f"{session.name}/streams/{stream}"
            # Neighbours lie in one stream, as they do in a table that was loaded in order.
            step = -(-len(rows) // number)
            self._streams[name] = (table, columns, rows[stream * step : (stream + 1) * step])
            session.streams.append(types.ReadStream(name=name))
        return session

    def read_rows(
        self, request: types.ReadRowsRequest, context: grpc.ServicerContext
    ) -> Iterator[types.ReadRowsResponse]:
        table, columns, rows = self._streams[request.read_stream]
        schema = self._avro(table, columns)
        parsed = fastavro.parse_schema(json.loads(schema))
        for start in range(0, len(rows), 7):
            some = rows[start : start + 7]
            sink = io.BytesIO()
            for row in some:
                fastavro.schemaless_writer(sink, parsed, {name: row.get(name) for name in columns})
            response = types.ReadRowsResponse(row_count=len(some))
            response.avro_schema.schema = schema
            response.avro_rows.serialized_binary_rows = sink.getvalue()
            yield response

    @staticmethod
    def _avro(table: Table, columns: Sequence[str]) -> str:
        fields = [
            {"name": name, "type": ["null", _AVRO[kind]]}
            for name, kind in table.columns
            if name in columns
        ]
        return json.dumps({"type": "record", "name": "__root__", "fields": fields})

    # --- REST ---

    def answer(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Return status and answer of a request."""
        self.asked.append(f"{method} {path}")
        routes: list[tuple[str, str, Callable[..., tuple[int, Any]]]] = [
            ("GET", r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)", self._table),
            ("GET", r"projects/([^/]+)/datasets", lambda project: (200, {})),
            ("POST", r"projects/([^/]+)/datasets", lambda project: (200, body)),
            ("DELETE", r"projects/.*", lambda: (204, None)),
            ("GET", r"projects/([^/]+)/datasets/([^/]+)", lambda *names: self._missing(*names)),
            ("POST", r"projects/([^/]+)/jobs", functools.partial(self._job, body)),
            ("GET", r"projects/([^/]+)/jobs/([^/]+)", lambda project, id: (200, self.jobs[id])),
            ("POST", r"projects/([^/]+)/queries", functools.partial(self._query, body)),
        ]
        for wanted, pattern, act in routes:
            found = re.fullmatch(rf"/bigquery/v2/{pattern}", path)
            if wanted == method and found:
                return act(*found.groups())
        return 501, {"error": {"code": 501, "message": f"the fake knows no {method} {path}"}}

    def _table(self, *names: str) -> tuple[int, Any]:
        found = self.tables.get(".".join(names))
        return (200, found.resource(".".join(names))) if found else self._missing(*names)

    def _missing(self, *names: str) -> tuple[int, Any]:
        message = f"Not found: {'.'.join(names)}"
        return 404, {"error": {"code": 404, "message": message, "errors": [{"reason": "notFound"}]}}

    def _job(self, body: Mapping[str, Any], project: str) -> tuple[int, Any]:
        configuration = body["configuration"]
        id = body.get("jobReference", {}).get("jobId") or f"job{len(self.jobs)}"
        statistics: dict[str, Any] = {}
        if "query" in configuration:
            sql = configuration["query"]["query"]
            if sql not in self.queries:
                return 400, {"error": {"code": 400, "message": f"Syntax error: {sql}"}}
            of, answer = self.queries[sql]
            statistics["query"] = {
                "totalBytesProcessed": "99",
                "schema": answer.schema(),
                "referencedTables": [self.tables[of].resource(of)["tableReference"]],
                "statementType": "SELECT",
            }
            statistics["totalBytesProcessed"] = "99"
            if target := configuration["query"].get("destinationTable"):
                name = f"{target['projectId']}.{target['datasetId']}.{target['tableId']}"
                self.tables[name] = answer
        else:
            self._load(configuration["load"])
        self.jobs[id] = {
            "kind": "bigquery#job",
            "id": f"{project}:EU.{id}",
            "jobReference": {"projectId": project, "jobId": id, "location": "EU"},
            "configuration": configuration,
            "status": {"state": "DONE"},
            "statistics": statistics,
        }
        return 200, self.jobs[id]

    def _load(self, wanted: Mapping[str, Any]) -> None:
        target = wanted["destinationTable"]
        name = f"{target['projectId']}.{target['datasetId']}.{target['tableId']}"
        lines = b"".join(storage.read(path) for path in wanted["sourceUris"]).splitlines()
        columns = [(column["name"], column["type"]) for column in wanted["schema"]["fields"]]
        rows: list[Row] = [json.loads(line) for line in lines]
        old = self.tables.get(name)
        if old and wanted["writeDisposition"] != "WRITE_TRUNCATE":
            rows = [*old.rows, *rows]
        self.tables[name] = Table(columns, rows)

    def _query(self, body: Mapping[str, Any], project: str) -> tuple[int, Any]:
        if body["query"] not in self.queries:
            return 400, {"error": {"code": 400, "message": f"Syntax error: {body['query']}"}}
        _, answer = self.queries[body["query"]]
        rows = [{"f": [{"v": row.get(name)} for name, _ in answer.columns]} for row in answer.rows]
        return 200, {
            "kind": "bigquery#queryResponse",
            "schema": answer.schema(),
            "jobReference": {"projectId": project, "jobId": "query", "location": "EU"},
            "totalRows": str(len(rows)),
            "rows": rows,
            "jobComplete": True,
        }


@contextlib.contextmanager
def served() -> Iterator[BigQueryServer]:
    """Serve a fake, and lead Beam's and Google's clients to it while the body runs."""
    fake = BigQueryServer()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, fake))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    rpc = grpc.server(ThreadPoolExecutor(4))
    methods = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            fake.create_read_session,
            types.CreateReadSessionRequest.deserialize,
            types.ReadSession.serialize,
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            fake.read_rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
        ),
    }
    rpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()

    def client() -> BigQueryReadClient:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))

    # Without credentials apitools asks a person for them.
    nobody = auth._ApitoolsCredentialsAdapter(credentials.AnonymousCredentials())
    address = f"http://127.0.0.1:{rest.server_address[1]}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIGQUERY_EMULATOR_HOST", address)
            patch.setenv("GOOGLE_CLOUD_PROJECT", "project")
            patch.setattr(
                "google.auth.default",
                lambda *_, **__: (credentials.AnonymousCredentials(), "project"),
            )
            patch.setattr(auth._Credentials, "_credentials_init", True)
            patch.setattr(auth._Credentials, "_credentials", nobody)
            patch.setattr(bigquery_v2_client.BigqueryV2, "BASE_URL", f"{address}/bigquery/v2/")
            patch.setattr(bigquery_storage_v1, "BigQueryReadClient", client)
            yield fake
    finally:
        rest.shutdown()
        rest.server_close()
        rpc.stop(None)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, fake: BigQueryServer, *args: Any) -> None:
        self._fake = fake
        super().__init__(*args)

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"{}")
        path = self.path.partition("?")[0]
        status, answer = self._fake.answer(self.command, path, body)
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        pass
