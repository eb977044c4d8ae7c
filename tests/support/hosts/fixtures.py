# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for tests that need hosts; a conftest imports the names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.hosts.bench import HostBench
from tests.support.hosts.host import Host

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def host_bench() -> Iterator[HostBench]:
    """The session's bench, without hosts at first."""
    with HostBench() as bench:
        yield bench


@pytest.fixture(scope="session")
def hosts(host_bench: HostBench) -> dict[str, Host]:
    """Three hosts, `one`, `two` and `three`, shared by the session: who breaks one uses `healed_hosts` or heals it."""
    return {host.name: host for host in host_bench.start_many(["one", "two", "three"])}


@pytest.fixture
def healed_hosts(hosts: dict[str, Host]) -> Iterator[dict[str, Host]]:
    """The session's hosts for a test that causes faults: they are undone at its end, files that it wrote stay."""
    yield hosts
    for host in hosts.values():
        host.heal()


@pytest.fixture
def fresh_host(host_bench: HostBench) -> Iterator[Host]:
    """A host of the test's own, gone with all its files at its end."""
    host = host_bench.start(f"fresh{next(_numbers)}")
    yield host
    host_bench.remove(host)
