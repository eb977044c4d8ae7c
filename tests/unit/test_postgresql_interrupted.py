# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore onto a PostgreSQL server that is killed at any step: old, new, or undone first by the next restore."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, ConnectionLost, TargetError
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.instances import files_below
from tests.support.postgresql import OwnDatabase, our_sessions, own_database
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import changed_agent, local_agent, put_back, staged_agent, take

DIE = "__import__('os').kill(__import__('os').getpid(), 9)"
PLACING, TARGET, RESTORE = "agent.placing", "database.postgresql.target", "agent.restore"
#: Where an agent is killed: module, the line that is next, and whether the target is the new one by then.
STEPS = {
    "before the staging database": (PLACING, '        state["database_stage"] = server.stage(', False),
    "a staging database without rights": (TARGET, "            self._guard = connect(self.admin, name)\n", False),
    "media not yet unpacked": (PLACING, "    if channel.keep:\n        channel.cleanup.remove(token)", False),
    "database loaded": (TARGET, "        with connect(self.place, stage) as session:\n            # The dump", False),
    "rows compared": (RESTORE, "        with server.staged_view(arguments", False),
    "before the journal": (PLACING, "            if media_root and (database or server is not None):", False),
    "journal written": (
        PLACING,
        '            if media_root:\n                _place_media(stages["media_stage"]',
        False,
    ),
    "media in place": (PLACING, "                server.put_in_place(", False),
    "before the commit": (TARGET, '                session.execute("commit")', False),
    "after the commit": (TARGET, "        if replaces:\n            # It is empty", True),
    "all in place": (PLACING, "            # From here on nothing is undone", True),
}
#: As many as tell apart what a conversation and separate requests do.
STAGED_STEPS = ("media not yet unpacked", "database loaded", "media in place", "before the commit", "after the commit")


@pytest.fixture
def own(own_postgres_server: PostgresServer) -> Iterator[OwnDatabase]:
    with own_database(own_postgres_server, attributes="createdb") as made:
        yield made


class Site:
    """A snapshot of an instance, and the place of its restore: a media directory and a database."""

    def __init__(self, own: OwnDatabase, place: InstanceDirectory, disk: Path) -> None:
        self.own = own
        self.place = place
        self.source = disk / "instance" / "media"
        self.source.mkdir(parents=True)
        for _number in range(3):
            own.add_document(self.source)
        self.name = own.name + "_restored"
        self.url = own.server.url(self.name, own.name, own.password)
        self.parent = disk / "target"
        self.parent.mkdir()
        self.media = self.parent / "media"
        take(Made(self.source, own.url), place)

    def databases(self) -> list[str]:
        return [name for name in self.own.server.databases() if name not in ("postgres", self.own.name)]

    def has_database(self) -> bool:
        return self.name in self.databases() and bool(
            self.own.server.rows("select 1 from pg_tables where tablename = 'core_document'", self.name)
        )

    def require_new(self) -> None:
        assert files_below(self.media) == files_below(self.source)
        assert self.own.server.count("core_document", self.name) == 3

    def require_no_mixture(self) -> None:
        """A database with rows only beside its media."""
        if self.has_database():
            self.require_new()

    def finish(self) -> None:
        """Restore again, where that is still to be done, and look for leftovers."""
        if self.has_database():
            with pytest.raises(TargetError, match="is not empty"):
                put_back(self.place, self.media, self.url)
        else:
            put_back(self.place, self.media, self.url)
        self.require_new()
        assert self.databases() == [self.name]
        assert list(self.parent.rglob(".papermerge-backup.*")) == []
        assert our_sessions(self.own.server) == []


class Made:
    def __init__(self, media: Path, url: str) -> None:
        self.media = media
        self.database_url = url


@pytest.fixture
def site(own: OwnDatabase, place: InstanceDirectory, disk: Path) -> Site:
    return Site(own, place, disk)


def wait_for_no_session(site: Site) -> None:
    assert our_sessions(site.own.server) == []


@pytest.mark.parametrize(
    ("step", "existed"), [*((step, False) for step in STEPS), ("media in place", True), ("after the commit", True)]
)
def test_an_agent_that_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch, step: str, existed: bool) -> None:
    if existed:
        site.media.mkdir(mode=0o711)
        site.own.server.create_database(site.name, site.own.name)
    module, before, is_new = STEPS[step]
    with changed_agent(monkeypatch, module, before, dying(before)), pytest.raises(ConnectionLost):
        put_back(site.place, site.media, site.url)
    wait_for_no_session(site)
    assert site.has_database() == is_new
    site.require_no_mixture()
    site.finish()


def dying(before: str) -> str:
    indent = before[: len(before) - len(before.lstrip())]
    return f"{indent}{DIE}\n{before}"


@pytest.mark.parametrize("step", STAGED_STEPS)
def test_a_staged_agent_that_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str) -> None:
    module, before, is_new = STEPS[step]
    with (
        changed_agent(monkeypatch, module, before, dying(before)),
        staged_agent(tmp_path) as session,
        pytest.raises(BackupError),
    ):
        put_back(site.place, site.media, site.url, session)
    wait_for_no_session(site)
    assert site.has_database() == is_new
    site.require_no_mixture()
    site.finish()


def test_a_staged_restore_succeeds(site: Site, tmp_path: Path) -> None:
    with staged_agent(tmp_path) as session:
        put_back(site.place, site.media, site.url, session)
    site.require_new()
    assert site.databases() == [site.name]


def test_an_agent_that_is_killed_while_the_server_loads(site: Site) -> None:
    """Its pg_restore ends as well, and so does the server's process."""
    site.own.as_owner("create table large as select n, repeat(md5(n::text), 60) as t from generate_series(1, 40000) n")
    take(Made(site.source, site.own.url), site.place)
    agent = local_agent()
    loading = "select count(*) from pg_stat_activity where usename is not null and query like 'COPY public.large%'"

    def kill() -> None:
        end = time.monotonic() + 20
        while site.own.server.execute(loading).strip() == "0" and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(agent.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with agent, pytest.raises(ConnectionLost):
        put_back(site.place, site.media, site.url, agent)
    killer.join()
    wait_for_no_session(site)
    assert not site.media.exists() and not site.has_database()
    site.finish()


def test_a_controller_that_is_gone_while_the_server_loads_leaves_nothing(site: Site) -> None:
    site.own.as_owner("create table large as select n, repeat(md5(n::text), 60) as t from generate_series(1, 40000) n")
    take(Made(site.source, site.own.url), site.place)
    agent = local_agent()
    loading = "select count(*) from pg_stat_activity where usename is not null and query like 'COPY public.large%'"

    def leave() -> None:
        end = time.monotonic() + 20
        while site.own.server.execute(loading).strip() == "0" and time.monotonic() < end:
            time.sleep(0.01)
        # As when the controller is killed: its end of the pipe is closed, and nothing is said.
        agent._input.close()

    leaver = threading.Thread(target=leave)
    leaver.start()
    with agent, pytest.raises((BackupError, OSError, ValueError)):
        put_back(site.place, site.media, site.url, agent)
    leaver.join()
    wait_for_no_session(site)
    end = time.monotonic() + 10
    while site.databases() and time.monotonic() < end:
        time.sleep(0.05)
    assert site.databases() == []
    assert not site.media.exists()
    assert list(site.parent.iterdir()) == []


def test_media_of_an_interrupted_restore_onto_another_database_are_not_touched(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, before, _is_new = STEPS["media in place"]
    with changed_agent(monkeypatch, module, before, dying(before)), pytest.raises(ConnectionLost):
        put_back(site.place, site.media, site.url)
    other = site.own.server.url(site.own.name + "_other", site.own.name, site.own.password)
    with pytest.raises(TargetError, match="is not empty"):
        put_back(site.place, site.media, other)
    site.finish()


def test_what_was_written_since_is_not_undone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    module, before, _is_new = STEPS["media in place"]
    with changed_agent(monkeypatch, module, before, dying(before)), pytest.raises(ConnectionLost):
        put_back(site.place, site.media, site.url)
    upload = next(path for path in site.media.rglob("document_*")) / "upload.pdf"
    time.sleep(0.02)
    upload.write_bytes(b"new")
    with pytest.raises(TargetError, match="was written after that"):
        put_back(site.place, site.media, site.url)
    assert upload.read_bytes() == b"new"
