# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: a real Papermerge is filled, backed up, lost, restored elsewhere, and opened again.

Everything happens below build/demo, with the playbooks that a user runs. Ends with a status other than 0 unless
Papermerge opens every document of the restored instance and finds everything as it was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.support.papermerge.install import InstallError, installed_papermerge
from tests.support.papermerge.instance import PapermergeError, PapermergeInstance

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "build" / "demo"
REPOSITORY = DEMO / "repository"
INVENTORY = """\
papermerge:
  hosts:
    office:
      papermerge_backup_project_dir: {office}
fresh:
  hosts:
    newhost:
      papermerge_backup_project_dir: {newhost}
all:
  vars:
    ansible_connection: local
    papermerge_backup_repository: {repository}
"""


class DemoFailed(Exception):
    """A step did not do what it is there to show."""


class Steps:
    """Prints each step with the time it took."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._number = 0

    def tell(self, text: str) -> None:
        self._number += 1
        print(f"\n[{time.monotonic() - self._begun:5.1f} s] {self._number}. {text}", flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun


def playbook(name: str, *arguments: str) -> None:
    """Run one of the collection's playbooks, shown as a user would type it. Raises DemoFailed."""
    inventory = DEMO / "inventory.yml"
    command = ["ansible-playbook", f"papermerge.backup.{name}", "-i", str(inventory), *arguments]
    print("$ " + " ".join(command).replace(str(ROOT) + "/", ""), flush=True)
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build"),
        "ANSIBLE_DISPLAY_OK_HOSTS": "false",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
    }
    program = str(Path(sys.executable).parent / "ansible-playbook")
    status = subprocess.run([program, *command[1:]], check=False, env=environment, stdin=subprocess.DEVNULL).returncode
    if status != 0:
        raise DemoFailed(f"{' '.join(command)} ended with status {status}")


def run(steps: Steps) -> None:
    """Play the whole story."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)
    steps.tell("Install a real Papermerge 2.0.2")
    installation = installed_papermerge()
    print(f"Papermerge {installation.version}")

    steps.tell("Make users, folders, tags, metadata and documents through Papermerge's own API")
    office = PapermergeInstance.create(DEMO / "office", installation)
    population = office.populate(documents=30)
    before = office.open_every_document()
    contents = office.contents()
    print(
        f"{population.documents} documents, {before.versions} versions, {before.users} users, {before.tags} tags, "
        f"{before.metadata} metadata, {len(contents['files'])} files in {office.media_root.relative_to(ROOT)}"
    )

    steps.tell("Take a snapshot, and verify it down to the last byte")
    newhost = DEMO / "newhost"
    (DEMO / "inventory.yml").write_text(
        INVENTORY.format(office=office.directory, newhost=newhost, repository=REPOSITORY), encoding="utf-8"
    )
    playbook("create")
    playbook("verify", "-e", "papermerge_backup_verify_level=deep")

    steps.tell("Lose the instance")
    shutil.rmtree(office.directory)
    print(f"{office.directory.relative_to(ROOT)} is gone")

    steps.tell("Install an empty Papermerge elsewhere and restore the snapshot into it")
    restored = PapermergeInstance.create(newhost, installation)
    restored.database.unlink()
    shutil.rmtree(restored.media_root, ignore_errors=True)
    playbook("restore", "-e", "papermerge_backup_hosts=newhost", "-e", "papermerge_backup_source=office")

    steps.tell("Let Papermerge open every document, log every user in, and compare everything with what was lost")
    after = restored.open_every_document()
    if after != before or restored.contents() != contents:
        raise DemoFailed("the restored instance is not the one that was lost")
    print(
        f"{after.opened} of {after.documents} documents opened ({after.never_uploaded} were never uploaded), "
        f"{after.users} users, {after.tags} tags and {after.metadata} metadata as before, "
        f"{len(contents['files'])} files byte for byte"
    )

    steps.tell("What is left to look at")
    playbook("list")
    snapshots = sorted((REPOSITORY / "office" / "snapshots").iterdir())
    print(
        f"Snapshot:           {snapshots[-1]}\nRestored Papermerge: {newhost}\nInventory:           "
        f"{DEMO / 'inventory.yml'}\nThe whole took {steps.seconds:.0f} s."
    )


def main() -> int:
    try:
        run(Steps())
    except (DemoFailed, InstallError, PapermergeError, OSError) as error:
        print(f"\nThe demonstration failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
