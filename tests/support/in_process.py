# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent in this very process: real scans and archives of a media directory, a database that is only said to be."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.agent.operations import OPERATIONS
from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import Cleanup
from ansible_collections.papermerge.backup.plugins.module_utils.durable import Piece
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers, Session
from tests.support.instances import MARKER, VERSION

#: What stands for the database's content: nobody opens it.
DATABASE = b"a database"


class _Channel:
    """What operations use of the agent's channel, without frames and threads."""

    def __init__(self, call: Call, handlers: Handlers) -> None:
        self._call = call
        self._handlers = handlers
        self.keep = False
        self.cleanup = Cleanup()
        self.memory: dict[Any, Any] = {}

    def data(self, piece: bytes) -> None:
        if self._handlers.data is not None:
            self._handlers.data(bytes(piece))

    def data_pieces(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self.data(bytes(piece))

    def lines(self, lines: Iterable[bytes]) -> None:
        if self._handlers.records is not None:
            self._handlers.records(json.loads(line) for line in lines)

    def event(self, value: dict[str, Any]) -> None:
        if self._handlers.event is not None:
            self._handlers.event(value)

    def progress(self, done: int, total: int) -> None:
        return

    def input_records(self) -> Iterator[dict[str, Any]]:
        return iter(self._call.records or ())

    def input_data(self) -> Iterator[bytes]:
        for piece in self._call.data or ():
            assert isinstance(piece, bytes)
            yield piece


class InProcessAgent(Session):
    """Answers like an agent on a host with this media directory.

    ``documents``: how many the database has. ``expected``: paths of files that rows of the database name.
    """

    def __init__(self, media: Path) -> None:
        self.media = media
        self.documents = 0
        self.expected: list[str] = []

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        handlers = handlers or Handlers()
        made_up: dict[str, Callable[[Handlers], dict[str, Any]]] = {
            "describe": self._describe,
            "dump_database": self._dump,
            "settle": lambda handlers: self._settle(call, handlers),
        }
        if call.operation in made_up:
            return made_up[call.operation](handlers)
        channel: Any = _Channel(call, handlers)
        with contextlib.closing(_Closing(channel.cleanup)):
            return OPERATIONS[call.operation](channel, call.arguments)

    def close(self) -> None:
        return

    def _counts(self) -> dict[str, int]:
        return {"core_document": self.documents}

    def _describe(self, _handlers: Handlers) -> dict[str, Any]:
        owner = [0, 0, "root", "root"]
        return {
            "version": VERSION,
            "version_found_in": "the test",
            "release_line": "2.0",
            "release_line_only": False,
            "project_dir": "",
            "database_engine": "sqlite",
            "database_url": "sqlite:////srv/db.sqlite3",
            "database_path": "/srv/db.sqlite3",
            "database_found_in": "the test",
            "database_size": len(DATABASE),
            "media_root": str(self.media),
            "media_found_in": "the test",
            "media_mode": 0o755,
            "media_owner": owner,
            "storage": None,
            "schema_marker": MARKER,
            "row_counts": self._counts(),
            "host": {"hostname": "here", "python": "3", "zstd": False, "user": "root"},
        }

    def _dump(self, handlers: Handlers) -> dict[str, Any]:
        moment = time.time_ns()
        if handlers.data is not None:
            handlers.data(DATABASE)
        if handlers.records is not None:
            rows = enumerate(self.expected)
            handlers.records(
                {"row": str(number), "key": str(number), "older": 0, "directory": path.rpartition("/")[0], "path": path}
                for number, path in rows
            )
        return {
            "schema_marker": MARKER,
            "row_counts": self._counts(),
            "plain_size": len(DATABASE),
            "plain_sha256": hashlib.sha256(DATABASE).hexdigest(),
            "moment_ns": moment,
            "dump_format": "sqlite3",
            "facts": {"owner": [0, 0, "root", "root"], "mode": 0o600, "restarts": 0, "locked_seconds": 0.0},
        }

    def _settle(self, call: Call, handlers: Handlers) -> dict[str, Any]:
        asked = list(call.records or ())
        if handlers.records is not None:
            handlers.records({**row, "row": True, "size": None} for row in asked)
        return {"looked_at": len(asked)}


class _Closing:
    def __init__(self, cleanup: Cleanup) -> None:
        self._cleanup = cleanup

    def close(self) -> None:
        self._cleanup.run()
