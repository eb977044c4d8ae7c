# SPDX-License-Identifier: GPL-3.0-or-later
"""What integration tests share: test hosts, one populated Papermerge, a home to run playbooks in."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.integration.papermerge_on_hosts import Source
from tests.support.hosts.fixtures import fresh_host, healed_hosts, host_bench, hosts
from tests.support.hosts.host import Host
from tests.support.papermerge.install import installed_papermerge
from tests.support.papermerge.instance import PapermergeInstance
from tests.support.playbooks import Playbooks
from tests.support.servers.fixtures import postgres_server

__all__ = ["fresh_host", "healed_hosts", "host_bench", "hosts", "postgres_server"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A populated Papermerge of this machine, which nobody changes."""
    scratch = tmp_path_factory.mktemp("source")
    installation = installed_papermerge()
    instance = PapermergeInstance.create(scratch / "papermerge", installation)
    instance.populate(documents=12)
    return Source(instance, scratch / "shipped", installation.version)


@pytest.fixture(scope="session")
def papermerge_hosts(hosts: dict[str, Host], source: Source) -> dict[str, Host]:
    """The session's hosts, each with the populated Papermerge in its usual place."""
    for host in hosts.values():
        source.install(host)
    return hosts


@pytest.fixture
def playbooks(tmp_path: Path) -> Playbooks:
    """A home to run playbooks in, with no repository yet."""
    return Playbooks(tmp_path / "home")


@pytest.fixture
def rng() -> random.Random:
    """Random numbers of this run's seed."""
    return random.Random(int(os.environ["PAPERMERGE_BACKUP_SEED"]))
