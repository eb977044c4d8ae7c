# SPDX-License-Identifier: GPL-3.0-or-later
"""Niceness, I/O class and a rate limit as settings of a playbook: seen on the host while it works."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import GREETING
from tests.support.hosts.host import Host
from tests.support.playbooks import Playbooks

SETTINGS = {
    "papermerge_backup_nice": 11,
    "papermerge_backup_io_class": "best-effort",
    "papermerge_backup_io_level": 5,
    "papermerge_backup_rate_limit": "1M",
}


def agents_seen(host: Host, run: subprocess.Popen[str]) -> dict[int, set[tuple[int, str]]]:
    """Return niceness and I/O class of each agent on a host, at every look while a playbook runs."""
    found: dict[int, set[tuple[int, str]]] = {}
    while run.poll() is None:
        for pid in host.group.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            if words.startswith(b"python") and GREETING.strip() in words:
                done = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=False)
                found.setdefault(pid, set()).add((int(fields[16]), done.stdout.strip()))
        time.sleep(0.05)
    return found


def test_creates_and_restores_behave_as_the_inventory_says(
    papermerge_hosts: dict[str, Host], playbooks: Playbooks
) -> None:
    host = papermerge_hosts["one"]
    target = {
        "papermerge_backup_media_root": "/srv/polite/media",
        "papermerge_backup_database_url": "sqlite:////srv/polite/db.sqlite3",
    }
    for playbook, login in (
        ("create", host.inventory("admin", ansible_become=True)),
        ("restore", host.inventory("root", **target)),
    ):
        run = playbooks.start(playbook, {"polite": {**login, **SETTINGS}})
        seen = agents_seen(host, run)
        finished = playbooks.finish(run)
        assert finished.results() == {"polite": "ok"}, str(finished)
        assert seen
        # Before it has been told so it is as any other process, for a moment.
        assert all((11, "best-effort: prio 5") in looks for looks in seen.values()), seen
