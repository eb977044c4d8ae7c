# SPDX-License-Identifier: GPL-3.0-or-later
"""A create inside a container: refused where the snapshot would be lost with it, taken on a mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.instances import VERSION, MadeInstance
from tests.support.playbooks import CHECKOUT, PlaybookRun, Playbooks

if os.geteuid() != 0:
    pytest.skip("makes mounts, which only root can", allow_module_level=True)

# A root of its own, as an engine makes it: an overlay with the engine's mark, what is bound into it, and nothing more.
ENTER = """
set -eu
room=$1; shift
mount -t tmpfs -o mode=755 tmpfs "$room"
mkdir "$room/upper" "$room/work" "$room/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$room/upper,workdir=$room/work" "$room/root"
while [ "$1" != -- ]; do
    mkdir -p "$room/root$1"
    mount --rbind "$1" "$room/root$1"
    shift
done
shift
mkdir -p "$room/root/run"
: >"$room/root/run/.containerenv"
exec chroot "$room/root" /usr/bin/env --chdir=/ "$@"
"""


HOME = "/papermerge-backup-test-home"
"""In the container's layer, where nothing of this machine is bound to."""


class Container:
    """Runs playbooks in a root that is an overlay, which is gone after each run. `mounts` are seen by it."""

    def __init__(self, room: Path, playbooks: Playbooks, *mounts: Path) -> None:
        self.room, self.playbooks = room, playbooks
        self.mounts = [*mounts, playbooks.home, CHECKOUT, Path(sys.prefix), Path("/proc"), Path("/dev"), Path("/sys")]

    def enter(self, command: Sequence[str]) -> list[str]:
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh", str(self.room)]
        return [*words, *map(str, self.mounts), "--", *command]

    def create(self, instance: MadeInstance, **extra: Any) -> PlaybookRun:
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "papermerge_backup_media_root": str(instance.media),
            "papermerge_backup_database_url": instance.database_url,
            "papermerge_backup_app_version": VERSION,
        }
        done = subprocess.run(
            self.enter(self.playbooks.command("create", {"paperhost": host}, extra=extra)),
            env=self.playbooks.environment({"HOME": HOME}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return PlaybookRun(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def container(tmp_path: Path, instance: MadeInstance) -> Container:
    room = tmp_path / "room"
    room.mkdir()
    (tmp_path / "kept").mkdir()
    playbooks = Playbooks(tmp_path / "home")
    return Container(room, playbooks, instance.root, tmp_path / "kept")


@pytest.fixture
def instance() -> Iterator[MadeInstance]:
    """An instance on a disk: databases are not copied to memory."""
    place = Path(tempfile.mkdtemp(prefix="papermerge-backup-test-", dir="/var/tmp"))
    yield MadeInstance(place / "instance")
    shutil.rmtree(place)


def test_a_create_in_a_container_needs_a_mount(container: Container, instance: MadeInstance, tmp_path: Path) -> None:
    refused = container.create(instance)
    assert refused.status == 2
    assert refused.results() == {"paperhost": "failed"}
    message = refused.message("paperhost")
    assert "papermerge-backups would be lost when this container ends" in message
    assert "/run/.containerenv" in message

    lost = container.create(instance, papermerge_backup_accept_ephemeral="true")
    assert lost.results() == {"paperhost": "ok"}, str(lost)
    assert not Path(HOME).exists(), "the container's layer should be gone"

    kept = container.create(instance, papermerge_backup_repository=str(tmp_path / "kept"))
    assert kept.results() == {"paperhost": "ok"}, str(kept)
    assert len(list((tmp_path / "kept" / "paperhost" / "snapshots").iterdir())) == 1
