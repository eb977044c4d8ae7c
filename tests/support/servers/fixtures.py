# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for tests that need database servers; a conftest or a test file imports the names.

Tests that break a server, or need settings or another release of it, start one of their own: that takes 0.1 s.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's PostgreSQL: databases and roles are told apart by name, who makes them removes them."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def maria_server() -> Iterator[MariaServer]:
    """The session's MariaDB: databases and users are told apart by name, who makes them removes them."""
    with MariaServer() as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL cluster of one test file, for tests that look at all of its databases."""
    with PostgresServer() as server:
        yield server
