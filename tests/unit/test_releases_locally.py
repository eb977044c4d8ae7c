# SPDX-License-Identifier: GPL-3.0-or-later
"""Every release line on every engine through a real agent on this machine: found, proved, verified, restored."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError, TargetError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import release_line_named
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_of
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers
from tests.support.generated.instance import COMBINATIONS, PASSWORD, GeneratedInstance, generate
from tests.support.generated.project import write_project
from tests.support.instances import files_below
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import local_agent, place_in, quiet, verify

Server = PostgresServer | MariaServer
NEW = "restored"
"""The database on the server that a restore goes to."""


@dataclasses.dataclass(frozen=True)
class Made:
    """An instance on this machine: `project` is where it is installed and where its service works."""

    instance: GeneratedInstance
    project: Path
    server: Server | None


@pytest.fixture(params=COMBINATIONS, ids=["-".join(combination) for combination in COMBINATIONS])
def made(
    request: pytest.FixtureRequest, disk: Path, postgres_server: PostgresServer, maria_server: MariaServer
) -> Iterator[Made]:
    line, engine = request.param
    servers: dict[str, Server] = {"postgresql": postgres_server, "mysql": maria_server}
    server = servers.get(engine)
    name = f"local_{line.replace('.', '_').replace('-', '_')}"
    seed = int(os.environ["PAPERMERGE_BACKUP_SEED"])
    instance = generate(line, engine, disk / "source", seed, server=server, name=name, large_text=1 << 14)
    project = disk / "opt" / "papermerge"
    written = write_project(
        disk,
        instance.version,
        database_url=instance.database_url,
        media_root=str(instance.media),
        directory=str(project),
        python=sys.executable,
    )
    # Its unit is not where this machine's systemd looks; a process is found anywhere.
    service = subprocess.Popen(
        [project / ".venv/bin/python", "-c", "import time; time.sleep(600)"],
        cwd=project,
        env={"PATH": os.environ["PATH"], **written.environment},
    )
    yield Made(instance, project, server)
    service.kill()
    service.wait()
    if server is not None:
        server.drop_database(name)
        server.drop_database(NEW)


def expected_paths(project: Path) -> list[bytes]:
    """Return the paths of the rows that a dump sends for its proof."""
    found: list[bytes] = []

    def take(rows: Iterator[dict[str, Any]]) -> None:
        found.extend(path_of(row) for row in rows if "path" in row or "path_base64" in row)

    settings = {"project_dir": str(project), "media_root": None, "database_url": None, "app_version": None}
    arguments = {"instance": settings, "copy_dir": "", "compress": False, "host_path": ""}
    with local_agent() as session:
        session.call(Call("dump_database", arguments), Handlers(records=take, data=lambda _piece: None))
    return found


def create(made: Made, place: InstanceDirectory, warn: Callable[[str], object] = lambda _text: None) -> dict[str, Any]:
    request = CreateRequest(host="here", instance=place.name, project_dir=str(made.project))
    with local_agent() as session:
        return create_snapshot(session, place, request, quiet(), warn)


def restore(
    made: Made, place: InstanceDirectory, disk: Path, version: str = "", warn: Callable[[str], object] = lambda _: None
) -> tuple[dict[bytes, bytes], dict[str, int]]:
    """Restore to another place. Returns contents by path, and row counts by table."""
    media, tables = disk / "new" / "media", list(made.instance.counts)
    media.parent.mkdir()
    url = f"sqlite:///{disk}/new/db.sqlite3"
    admin = None
    if isinstance(made.server, PostgresServer):
        url = made.server.url(NEW, made.instance.database, PASSWORD)
        made.server.execute(f"alter role {made.instance.database} createdb")
    elif made.server is not None:
        url = made.server.url(NEW, made.instance.database, PASSWORD)
        made.server.execute(
            "create user if not exists 'boss'@'%' identified by 'x'; grant all on *.* to 'boss'@'%' with grant option;"
            f"create database {NEW}; grant all on {NEW}.* to '{made.instance.database}'@'%'"
        )
        admin = made.server.url("mysql", "boss", "x")
    request = RestoreRequest(
        media_root=str(media), database_url=url, database_admin_url=admin, app_version=version or made.instance.version
    )
    with local_agent() as session:
        restore_snapshot(session, place, request, quiet(), False, warn)
    if made.server is not None:
        counts = {table: made.server.count(table, NEW) for table in tables}
    else:
        with closing(sqlite3.connect(disk / "new" / "db.sqlite3")) as connection:
            counts = {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}
    return {path: content for path, (content, _time, _mode) in files_below(media).items()}, counts


def test_each_release_is_found_proved_and_restored_on_each_engine(made: Made, disk: Path) -> None:
    place, instance = place_in(disk / "repository"), made.instance
    create(made, place)
    manifest = place.select("latest").require_manifest()
    assert (manifest.version, manifest.engine, manifest.schema_marker) == (
        instance.version,
        instance.engine,
        instance.marker,
    )
    assert manifest.media["root"] == str(instance.media)
    classes = manifest.proof["classes"]
    assert manifest.state == "complete"
    assert {name: count for name, count in classes.items() if count} == {
        name: count
        for name, count in {
            "present": instance.expected_rows,
            "not_expected": instance.never_uploaded + len(instance.unprocessed),
            "not_computable": instance.not_computable,
        }.items()
        if count
    }
    # Not only as many: the same.
    paths = expected_paths(made.project)
    assert set(paths) == instance.expected
    assert len(paths) == instance.expected_rows
    assert verify(place, "deep")["files"] == len(instance.sha256)

    files, counts = restore(made, place, disk)
    source = {path: content for path, (content, _time, _mode) in files_below(instance.media).items()}
    assert files == source
    assert counts == instance.counts


def forget_version(project: Path) -> None:
    """Take away every file, or line of one, that tells the version."""
    for distribution in project.rglob("papermerge*.dist-info"):
        shutil.rmtree(distribution)
    for path in (project / "pyproject.toml", *project.glob("papermerge/**/*.py"), *project.rglob("core/__init__.py")):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"(?m)^(version|VERSION|__version__)\b.*\n", "", text), encoding="utf-8")


def test_where_no_file_tells_the_version_the_database_tells_the_line(made: Made, disk: Path) -> None:
    forget_version(made.project)
    place, line, warnings = place_in(disk / "repository"), release_line_named(made.instance.line), list[str]()
    create(made, place, warnings.append)
    manifest = place.select("latest").require_manifest()
    assert (manifest.release_line, manifest.release_line_only) == (made.instance.line, True)
    assert manifest.version == line.newest_version
    assert f"schema marker {made.instance.marker} of database" in manifest.papermerge["found_in"]
    assert f"no more than the release line {made.instance.line}" in manifest.papermerge["found_in"]
    assert PASSWORD not in manifest.papermerge["found_in"]
    assert len(warnings) == 1 and "set papermerge_backup_app_version" in warnings[0]
    assert manifest.proof["classes"]["present"] == made.instance.expected_rows

    notes: list[str] = []
    assert restore(made, place, disk, warn=notes.append)[1] == made.instance.counts
    # The test says exactly which release the target is of; that of the snapshot stays unknown.
    assert len(notes) == 1
    assert f"both are of the release line {line.name}, which is all that is known of the snapshot" in notes[0]


@pytest.mark.parametrize("made", [("3.0-3.2", "sqlite")], indirect=True)
def test_a_snapshot_of_which_the_line_is_known_goes_onto_that_line_only(made: Made, disk: Path) -> None:
    forget_version(made.project)
    place = place_in(disk / "repository")
    create(made, place)
    with pytest.raises(TargetError, match=r"is 3\.3\.1, the snapshot is of Papermerge .* release line 3\.0-3\.2"):
        restore(made, place, disk, "3.3.1")
    shutil.rmtree(disk / "new")
    assert restore(made, place, disk, "3.0.3")[1] == made.instance.counts


@pytest.mark.parametrize("made", [("2.0", "sqlite"), ("3.4", "postgresql")], indirect=True)
def test_a_mark_that_nobody_knows_tells_nothing(made: Made, disk: Path) -> None:
    forget_version(made.project)
    if made.server is None:
        with closing(sqlite3.connect(made.instance.database)) as connection:
            connection.execute("update django_migrations set name = '0099_later' where app = 'core'")
            connection.commit()
    else:
        made.server.execute("update alembic_version set version_num = '0099_later'", made.instance.database)
    words = rf"no file of {made.project} .* tells the version .* bears 0099_later.*set papermerge_backup_app_version"
    with pytest.raises(SettingError, match=words):
        create(made, place_in(disk / "repository"))
