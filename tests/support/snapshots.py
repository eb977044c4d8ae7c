# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of made instances through a real agent in a child process."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent.manners import Manners
from ansible_collections.papermerge.backup.plugins.module_utils.durable import Piece
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport import pack
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.rate import RateLimit
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers, Session
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.staged import HostAccess, StagedSession
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import StreamedSession
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import Verification, scratch_directory
from tests.support.instances import VERSION


def quiet() -> Progress:
    return Progress("here", lambda _line: None)


def local_agent(
    interpreter: str | None = None, before: str = "", manners: Manners | None = None, limit: RateLimit | None = None
) -> StreamedSession:
    """Start an agent in a child process. ``before``: what a login shell does first."""
    argv = ["/bin/sh", "-c", before + agent_command(interpreter or sys.executable)]

    def start() -> StreamedSession:
        return StreamedSession(argv, "here", manners=manners, limit=limit)

    session = start()
    session.another = start
    return session


def staged_agent(scratch: Path, interpreter: str = sys.executable, manners: Manners | None = None) -> StagedSession:
    """Reach agents by files, as through a connection whose streams cannot be had."""

    def run(command: str, become: bool) -> tuple[int, str, str]:
        del become
        done = subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    access = HostAccess("here", run, shutil.copyfile, shutil.copyfile, None)
    return StagedSession(access, "test", interpreter, scratch, manners=manners)


def unprivileged_agent() -> StreamedSession:
    """Start an agent that is not root: as this user, or as nobody where the tests are run by root."""
    if os.geteuid() != 0:
        return local_agent()
    # The Python of the tests may lie where nobody cannot go, so the agent searches one of its own.
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c", agent_command(None)]
    return StreamedSession(command, "here", environment={**os.environ, "PATH": "/usr/local/bin:/usr/bin:/bin"})


@contextmanager
def changed_agent(monkeypatch: pytest.MonkeyPatch, module: str, old: str, new: str) -> Iterator[None]:
    """Let agents run with another value of a constant, such as a shorter patience."""
    sources = pack._sources()
    name = f"{pack.PACKAGE}.{module}"
    assert sources[name].count(old) == 1
    sources[name] = sources[name].replace(old, new)
    with monkeypatch.context() as patch:
        patch.setattr(pack, "_sources", lambda: sources)
        pack.agent_pack.cache_clear()
        try:
            yield
        finally:
            pack.agent_pack.cache_clear()


class NoAgent(Session):
    """A session that must not be used."""

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        raise AssertionError(f"the agent was asked for {call.operation}")

    def close(self) -> None:
        return


class WatchedSession(Session):
    """Passes calls on and keeps them; ``before`` sees each call first and may break something."""

    def __init__(self, session: Session, before: Any = lambda _call: None) -> None:
        self._session = session
        self._before = before
        self.another = session.another and self._beside
        self.is_here = session.is_here
        self.calls: list[Call] = []

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        self.calls.append(call)
        self._before(call)
        return self._session.call(call, handlers)

    def close(self) -> None:
        self._session.close()

    def _beside(self) -> Session:
        assert self._session.another is not None
        beside = WatchedSession(self._session.another(), self._before)
        beside.calls = self.calls
        return beside

    def arguments(self, operation: str) -> list[dict[str, Any]]:
        return [call.arguments for call in self.calls if call.operation == operation]


class CountedSession(StreamedSession):
    """A local agent whose streams are counted, those of agents beside it as well, and may be cut.

    ``moved``: bytes by operation, both directions. ``cut_after``: bytes received from now on, after which the
    connection ends for good.
    """

    def __init__(self, beside: CountedSession | None = None) -> None:
        self._operation = "start"
        self._counters: dict[str, Any] = (
            beside._counters
            if beside is not None
            else {"moved": {}, "left": None, "calls": [], "lock": threading.Lock()}
        )
        super().__init__(["/bin/sh", "-c", agent_command(sys.executable)], "here")
        self.another = lambda: CountedSession(self)

    @property
    def moved(self) -> dict[str, int]:
        return dict(self._counters["moved"])

    @property
    def calls(self) -> list[str]:
        return list(self._counters["calls"])

    def media_bytes(self) -> int:
        """Return the bytes that the media have cost: scan, hashes, parts, settle pass."""
        names = ("scan_media", "hash_media", "archive_media", "settle")
        return sum(self.moved.get(name, 0) for name in names)

    def cut_after(self, received: int) -> None:
        self._counters["left"] = received

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        self._operation = call.operation
        self._counters["calls"].append(call.operation)
        return super().call(call, handlers)

    def _count(self, length: int) -> None:
        with self._counters["lock"]:
            moved = self._counters["moved"]
            moved[self._operation] = moved.get(self._operation, 0) + length

    def _write(self, written: list[Piece]) -> None:
        self._count(sum(map(len, written)))
        super()._write(written)

    def _read_into(self, taken: bytearray | memoryview) -> bytearray | memoryview:
        length = len(taken)
        with self._counters["lock"]:
            left = self._counters["left"]
            allowed = length if left is None else min(length, left)
            if left is not None:
                self._counters["left"] = left - allowed
        if length and not allowed:
            self._at_end = True
            self._process.kill()
            return taken[:0]
        data = super()._read_into(taken if allowed == length else memoryview(taken)[:allowed])
        self._count(len(data))
        return data


def place_in(repository: Path, name: str = "one") -> InstanceDirectory:
    return Repository(str(repository)).instance(name)


class WithMediaAndDatabase(Protocol):
    """An instance that was made: where its media are, and the URL of its database."""

    @property
    def media(self) -> Path: ...

    @property
    def database_url(self) -> str: ...


@dataclass(frozen=True)
class MediaAndDatabase:
    """Nothing but that."""

    media: Path
    database_url: str


def take(
    instance: WithMediaAndDatabase, place: InstanceDirectory, session: Session | None = None, **settings: Any
) -> dict[str, Any]:
    """Create a snapshot of an instance whose settings are all given by hand. ``warn`` takes the warnings."""
    warn = settings.pop("warn", lambda _text: None)
    request = CreateRequest(
        host="here",
        instance=place.name,
        media_root=str(instance.media),
        database_url=instance.database_url,
        app_version=VERSION,
        collection_version="0.0.0",
    )
    for name, value in settings.items():
        setattr(request, name, value)
    if session is not None:
        return create_snapshot(session, place, request, quiet(), warn)
    with local_agent() as own:
        return create_snapshot(own, place, request, quiet(), warn)


def put_back(
    place: InstanceDirectory,
    media: Path,
    database: Path | str,
    session: Session | None = None,
    snapshot: str = "latest",
    check_only: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Restore a snapshot to a media directory and a database of one's own: a file, or the URL of one on a server."""
    url = database if isinstance(database, str) else f"sqlite:///{database}"
    request = RestoreRequest(snapshot=snapshot, media_root=str(media), database_url=url, app_version=VERSION)
    for name, value in settings.items():
        setattr(request, name, value)
    if session is not None:
        return restore_snapshot(session, place, request, quiet(), check_only)
    with local_agent() as own:
        return restore_snapshot(own, place, request, quiet(), check_only)


def verify(place: InstanceDirectory, level: str, wanted: str = "latest") -> dict[str, Any]:
    """Verify one snapshot. Raises what the verification raises."""
    with scratch_directory() as scratch:
        return Verification(place, place.select(wanted), quiet(), scratch).verify(level)


def interpreter_without(program: str, directory: Path, python: str = sys.executable) -> str:
    """Return a Python that finds a program nowhere, as on a host that lacks it."""
    prelude = (
        "import shutil as _s;_which=_s.which;"
        f"_s.which=lambda name,*a,**k:None if name=={program!r} else _which(name,*a,**k);"
    )
    return _interpreter_after(prelude, directory / f"python-without-{program}", python)


def interpreter_without_module(module: str, directory: Path, python: str = sys.executable) -> str:
    """Return a Python that cannot import a module, as on a host that lacks it."""
    prelude = f"import sys as _s;_s.modules[{module!r}]=None;"
    return _interpreter_after(prelude, directory / f"python-without-module-{module}", python)


def _interpreter_after(prelude: str, path: Path, python: str) -> str:
    path.write_text(
        f'#!/bin/sh\nexec {shlex.quote(python)} "$1" "$2" "$3" {shlex.quote(prelude)}"$4"\n', encoding="utf-8"
    )
    path.chmod(0o755)
    return str(path)


def open_files_of(pid: int) -> list[str]:
    """Return where the open descriptors of a process lead."""
    home = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(home):
        try:
            found.append(os.readlink(os.path.join(home, name)))
        except OSError:
            continue
    return found


def least_manifest(**changes: Any) -> dict[str, Any]:
    """Return the fields that every reader needs of a manifest, with made-up values; a change to ... leaves one out."""
    stored = {"name": "x.zst", "size": 0, "sha256": "0" * 64, "plain_size": 0}
    fields: dict[str, Any] = {
        "format": 1,
        "features": [],
        "id": "000001-20261122T134215Z",
        "sequence": 1,
        "state": "complete",
        "instance": "one",
        "started": "2026-11-22T13:42:15.000000Z",
        "ended": "2026-11-22T13:42:16.000000Z",
        "papermerge": {"version": "2.0.2", "release_line": "2.0"},
        "database": {
            "engine": "sqlite",
            "path": "/srv/db.sqlite3",
            "schema_marker": "0039",
            "plain_sha256": "0" * 64,
            "mode": 0o600,
            "owner": [0, 0, "root", "root"],
        },
        "media": {"root": "/srv/media", "mode": 0o755, "owner": [0, 0, "root", "root"]},
        "files": {"database": stored, "index": {**stored, "name": "index.zst"}},
        "parts": [],
        "row_counts": {},
        "proof": {"proved": 0, "expected": 0},
        "totals": {"files": 0, "media_bytes": 0},
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not ...}
