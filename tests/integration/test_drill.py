# SPDX-License-Identifier: GPL-3.0-or-later
"""The drill of several instances from one command line, as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import pdf
from tests.support.generated.instance import GeneratedInstance, generate
from tests.support.playbooks import Playbooks, tree
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer

ENGINES = ("sqlite", "postgresql", "mysql")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on a disk that other accounts can enter."""
    made = Path(tempfile.mkdtemp(prefix="pm-drill-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def made_instance(engine: str, place: Path, server: PostgresServer | MariaServer | None) -> GeneratedInstance:
    made = generate("2.1", engine, place / engine, server=server, name=f"drill_{engine}")
    for path in made.expected:
        Path(os.fsdecode(os.fsencode(made.media) + b"/" + path)).write_bytes(pdf())
    return made


def test_three_engines_are_drilled_and_one_that_fails_stops_no_other(place: Path) -> None:
    playbooks = Playbooks(place / "home")
    scratch = place / "scratch"
    scratch.mkdir(mode=0o755)
    hosts = {}
    with PostgresServer() as postgres, MariaServer() as maria:
        servers = {"postgresql": postgres, "mysql": maria}
        for engine in ENGINES:
            made = made_instance(engine, place, servers.get(engine))
            hosts[engine] = {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "papermerge_backup_media_root": str(made.media),
                "papermerge_backup_database_url": made.database_url,
                "papermerge_backup_app_version": made.version,
            }
        created = playbooks.run("create", hosts)
        assert created.status == 0, str(created)
    # The live instances are gone: nothing of them can be needed, or touched.
    for engine in ENGINES:
        shutil.rmtree(place / engine)
    extra = {"papermerge_backup_drill_dir": scratch, "papermerge_backup_rto": "1h", "papermerge_backup_rpo": "1d"}
    before = tree(playbooks.repository)

    told = playbooks.run("drill", hosts, extra=extra, options=["--check"])
    assert told.status == 0, str(told)
    assert set(told.results().values()) == {"checked"}
    assert not (playbooks.home / "papermerge-drills").exists()

    drilled = playbooks.run("drill", hosts, extra=extra)
    assert drilled.status == 0, str(drilled)
    assert drilled.results() == dict.fromkeys(ENGINES, "ok")
    assert {row["checks"] for row in drilled.rows} == {"8 passed"}
    for engine in ENGINES:
        (evidence,) = (playbooks.home / "papermerge-drills" / engine).iterdir()
        report = json.loads((evidence / "drill.json").read_text())
        assert (report["verdict"], report["snapshot"]["engine"]) == ("passed", engine)
        assert [damage["caught"] for damage in report["twin"]] == [True] * 3
        assert report["versions"]["ansible_core"]
        assert {path.name for path in evidence.iterdir()} == {"drill.json", "junit.xml", "report.html"}
    assert tree(playbooks.repository) == before
    assert list(scratch.iterdir()) == []

    part = max((playbooks.repository / "postgresql" / "parts").glob("*.tar.zst"), key=lambda path: path.stat().st_size)
    part.unlink()
    again = playbooks.run("drill", hosts, extra=extra)
    assert again.status == 2, str(again)
    assert again.results() == {"sqlite": "ok", "postgresql": "failed", "mysql": "ok"}
    assert f"Every stored byte is sound: {part} is missing" in again.message("postgresql")
    assert list(scratch.iterdir()) == []
