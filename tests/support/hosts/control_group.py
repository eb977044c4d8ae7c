# SPDX-License-Identifier: GPL-3.0-or-later
"""The control group (version 2) that holds every process of one test host."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.hosts.commands import BenchError


@dataclass(frozen=True)
class ControlGroup:
    """One group and the groups below it."""

    path: Path

    def create(self) -> None:
        """Make the group, empty."""
        self.path.mkdir(parents=True, exist_ok=True)

    def processes(self) -> list[int]:
        """Return the process ids in the group and below."""
        found = []
        for directory, _below, _files in os.walk(self.path):
            try:
                found += [int(line) for line in Path(directory, "cgroup.procs").read_text(encoding="ascii").split()]
            except OSError:  # the group went away, or holds threads only
                continue
        return found

    def first_process(self) -> int | None:
        """Return the outer process id of the container's PID 1, None when no container runs in the group."""
        depth = len(_namespace_ids("self"))
        inner = {process: _namespace_ids(process) for process in self.processes()}
        return next((process for process, ids in inner.items() if len(ids) == depth + 1 and ids[-1] == 1), None)

    def freeze(self, frozen: bool) -> None:
        """Stop or continue every process of the group; returns when that is so. Raises BenchError after 10 s."""
        (self.path / "cgroup.freeze").write_text("1" if frozen else "0", encoding="ascii")
        self._wait(f"frozen {int(frozen)}", 10)

    def kill(self) -> None:
        """End all processes of the group: PID 1 first, so that its supervisor can end in order, then what is left.

        Raises BenchError when something survives.
        """
        if not self.path.is_dir():
            return
        first = self.first_process()
        if first is not None:
            _kill(first)
        self.freeze(False)
        try:
            self._wait("populated 0", 10)
        except BenchError:
            for process in self.processes():
                _kill(process)
            self._wait("populated 0", 10)

    def remove(self) -> None:
        """Remove the empty group and the groups below it."""
        for directory, _below, _files in os.walk(self.path, topdown=False):
            os.rmdir(directory)

    def _wait(self, event: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while event not in (self.path / "cgroup.events").read_text(encoding="ascii").splitlines():
            if time.monotonic() > end:
                raise BenchError(f"control group {self.path.name} is not '{event}' after {seconds:g} s")
            time.sleep(0.01)


def _namespace_ids(process: int | str) -> list[int]:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return next(([int(word) for word in line.split()[1:]] for line in status.splitlines() if line[:6] == "NSpid:"), [])


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
