# SPDX-License-Identifier: GPL-3.0-or-later
"""What unit tests share: a place on a disk, instances, repositories, a seed."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import (
    MEMORY_FILE_SYSTEMS,
    file_system_type,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils import settling
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.instances import MadeInstance
from tests.support.servers.fixtures import maria_server, own_postgres_server, postgres_server
from tests.support.snapshots import place_in

__all__ = ["maria_server", "own_postgres_server", "postgres_server"]

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


def pytest_configure(config: pytest.Config) -> None:
    del config
    os.umask(0o022)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory of the test's own that is not in memory: there the collection refuses to copy databases to."""
    if file_system_type(str(tmp_path)) not in MEMORY_FILE_SYSTEMS:
        yield tmp_path
        return
    places = ["/var/tmp", str(REPOSITORY_ROOT / "build")]
    parent = [path for path in places if file_system_type(path) not in MEMORY_FILE_SYSTEMS][0]  # noqa: RUF015
    path = tempfile.mkdtemp(prefix="papermerge-backup-test-", dir=parent)
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def open_disk() -> Iterator[Path]:
    """A directory that other users can reach, for agents that are not root."""
    path = tempfile.mkdtemp(prefix="papermerge-backup-test-", dir="/var/tmp")
    os.chmod(path, 0o755)
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def instance(disk: Path) -> MadeInstance:
    """An instance without documents."""
    return MadeInstance(disk / "instance")


@pytest.fixture
def place(disk: Path) -> InstanceDirectory:
    """An instance's directory in a repository that does not exist yet."""
    return place_in(disk / "repository")


@pytest.fixture
def rng() -> random.Random:
    """Random numbers of this run's seed."""
    return random.Random(int(os.environ["PAPERMERGE_BACKUP_SEED"]))


@pytest.fixture
def soak() -> bool:
    """Whether samples are to be run in full."""
    return os.environ.get("PAPERMERGE_BACKUP_SOAK") == "1"


@pytest.fixture(autouse=True)
def own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for scratch files, so that tests side by side do not meet there."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    return scratch


@pytest.fixture(autouse=True)
def impatient_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause between two looks of the settle pass, shortened."""
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0.01)
