"""The contract of a labeling tool: review items out, experts' answers back, and its server if any.

To add a tool, write a folder with ``format.py``, a subclass of :class:`Tool` in it, and one line in
``pipelines.tools.registry``; ``tests/tools/test_contract.py`` then runs over it. ``outgoing`` has what
files that go out have in common, ``incoming`` what answers have, and a tool that can be pushed to and
pulled from names a subclass of ``pipelines.tools.server.Server`` besides.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

from pipelines.console.typed import typed
from pipelines.contracts import Rejected
from pipelines.tools.access import Access
from pipelines.tools.batch import Batch
from pipelines.tools.server import Server
from pipelines.verdicts.rows import RawVerdict


class Tool(abc.ABC):
    """A labeling tool, or a format of one's own. It holds no state."""

    # What ``--tool`` calls it.
    name: ClassVar[str]
    # Patterns of the names of the files that it writes; none where it only reads.
    files: ClassVar[tuple[str, ...]] = ()
    # Those of them into which experts write their answers: they are not replaced unasked.
    filled_in: ClassVar[tuple[str, ...]] = ()
    # What it can show beside the ads' text: both ads of a pair in one task (otherwise one follows the
    # other), what the model says, the fields of an ad apart.
    shows_pairs_together: ClassVar[bool] = True
    shows_predictions: ClassVar[bool] = True
    shows_fields: ClassVar[bool] = True
    # How its server is entered, and the class that talks to it, ``module:Class``; imported when used.
    access: ClassVar[Access | None] = None
    server: ClassVar[str] = ""

    @abc.abstractmethod
    def export(self, batch: Batch) -> dict[str, bytes]:
        """Return file name -> content. The same batch is the same bytes.

        A batch may hold pairs, single ads or both. Nothing of the model may be in the files unless
        ``batch.prediction`` says it.

        Raises:
            UsageError: the batch cannot be shown.
        """

    @abc.abstractmethod
    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield what a file that came back says of each ad, and a dead letter for each record that
        says nothing usable.

        Raises:
            RunFailed: the file as a whole is not this tool's.
        """

    def recognizes(self, path: str, data: bytes) -> bool:
        """Tell whether a file is this tool's by its name and beginning, when nobody says so.

        Exports of most tools look like one another, and the same file means other things in two of
        them: those say no and need ``--tool``.
        """
        del path, data
        return False

    def next_step(self, workspace: str) -> str:
        """Return what to do with the exported files, and how answers come back into a workspace."""
        back = "answers come back by " + typed(
            "import FILE... --tool {}", self.name, workspace=workspace
        )
        return f"follow setup.md; {back}" if "setup.md" in self.files else back

    @contextlib.contextmanager
    def connect(self, url: str, environment: Mapping[str, str] = os.environ) -> Iterator[Server]:
        """Give its server at an address, with the token that the environment holds.

        Raises:
            UsageError: no token, or an address that must not get it.
            RunFailed: the server cannot be reached or refuses.
        """
        assert self.access, f"{self.name} has no server"
        token = self.access.read_token(environment)
        module, _, member = self.server.partition(":")
        kind: type[Server] = getattr(importlib.import_module(module), member)
        with kind.connected(url, token, environment) as server:
            yield server
