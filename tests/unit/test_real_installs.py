# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of real installs can be loaded, and are what their expected.txt says."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.installs import NAMES, needs_installs, real_install
from tests.support.instances import files_below
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer


@needs_installs
@pytest.mark.parametrize("name", NAMES)
def test_a_real_install_is_loaded_as_its_notes_say(
    name: str, tmp_path: Path, postgres_server: PostgresServer, maria_server: MariaServer
) -> None:
    install = real_install(name)
    files = files_below(install.unpack_media(tmp_path / "media"))
    hashes = {path: hashlib.sha256(content).hexdigest() for path, (content, _time, _mode) in files.items()}
    assert install.sha256.items() <= hashes.items()
    assert install.expected
    assert install.expected <= install.sha256.keys()
    assert install.marker

    if install.engine == "sqlite":
        assert install.load(tmp_path / "db" / "db.sqlite3") == f"sqlite:///{tmp_path}/db/db.sqlite3"
        with closing(sqlite3.connect(tmp_path / "db" / "db.sqlite3")) as connection:
            found = {
                table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in install.counts
            }
    else:
        server = postgres_server if install.engine == "postgresql" else maria_server
        url = install.load(server, f"real_{install.engine}_{install.version.replace('.', '_')}")
        assert url.startswith(f"{install.engine}://real_")
        found = {table: server.count(table, url.rpartition("/")[2]) for table in install.counts}
    assert found == install.counts
