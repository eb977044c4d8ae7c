# SPDX-License-Identifier: GPL-3.0-or-later
"""A database of many document versions: the proof is quick, and no process grows with it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from tests.benchmark.measure import Command, Run, run
from tests.benchmark.ours import INSTANCE
from tests.support.generated.volume import BigInstance, big_versions
from tests.support.playbooks import CHECKOUT
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import place_in

VERSIONS, SOAK_VERSIONS = 100_000, 1_000_000
LIMIT_BYTES = 120 << 20
PROOF_SECONDS = 60
#: What only the proof needs.
PROOF_STEPS = ("rows", "settle", "prove")
PASSWORD = "one of a test"


@contextmanager
def many_versions(server: PostgresServer, directory: Path, versions: int) -> Iterator[BigInstance]:
    name = f"scale_{versions}"
    try:
        yield big_versions(server, name, directory / "big", versions, files=versions, password=PASSWORD)
    finally:
        server.drop_database(name)
        server.execute(f"drop role if exists {name}")
        # pytest would keep them for a while.
        shutil.rmtree(directory / "big")


def create(big: BigInstance, repository: Path) -> Run:
    """Take a snapshot in processes of its own."""
    job = {
        "do": "create",
        "is_here": False,
        "repository": str(repository),
        "agent": ["/bin/sh", "-c", agent_command(sys.executable)],
        "settings": {
            "media_root": str(big.small.media),
            "database_url": big.small.database_url,
            "app_version": big.small.version,
        },
    }
    return run(
        Command(
            [sys.executable, "-m", "tests.benchmark.ours", json.dumps(job)],
            environment=dict(os.environ),
            directory=CHECKOUT,
            answers=True,
        )
    )


def require_small(found: Run) -> None:
    """Fail if a process of ours, or a client program that it runs, was larger than it may be."""
    ours = {name: peak for name, peak in found.memory.items() if name != "postgres"}
    assert {"controller", "agent", "pg_dump"} <= set(ours), ours
    assert max(ours.values()) < LIMIT_BYTES, ours


def require_proved(found: Run, big: BigInstance) -> None:
    expected = big.versions + big.small.expected_rows
    answer = found.answer
    assert (answer["state"], answer["expected"], answer["originals"]) == ("complete", expected, expected)


def test_a_hundred_thousand_versions_are_proved_in_little_memory(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    with many_versions(postgres_server, tmp_path, VERSIONS) as big:
        found = create(big, tmp_path / "repository")
        require_proved(found, big)
        require_small(found)


@pytest.mark.soak
def test_the_proof_of_a_million_versions_adds_less_than_a_minute(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The second snapshot, which is also compared with the one before."""
    with many_versions(postgres_server, tmp_path, SOAK_VERSIONS) as big:
        for _number in range(2):
            found = create(big, tmp_path / "repository")
            timings = found.answer["timings"]
            print(f"\n{found.seconds:.0f} s, of which {timings}; others used {found.others:.1f} cores")
            print({name: f"{peak >> 20} MB" for name, peak in found.memory.items()})
            require_proved(found, big)
            require_small(found)
            assert sum(timings[name] for name in PROOF_STEPS) < PROOF_SECONDS, timings
    assert len(place_in(tmp_path / "repository", INSTANCE).snapshot_names()) == 2
