# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a command: how long it takes, and the memory and CPU time of every process that it starts.

Test hosts are processes of this machine, children of the one that has started them, so what a command starts on a host
is seen as well. A process that lives shorter than LOOK_SECONDS may be missed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import GREETING

LOOK_SECONDS = 0.05
ON_HOST = "@host"
_TICKS = os.sysconf("SC_CLK_TCK")
_AGENT_MARK = GREETING.strip()


class RunFailed(Exception):
    """A command that was to be measured did not do its work."""


@dataclass(frozen=True)
class Command:
    """What is run. The last line of its standard output is taken as JSON where ``answers``."""

    words: Sequence[str | Path]
    environment: Mapping[str, str] | None = None
    directory: Path | None = None
    answers: bool = False


@dataclass(frozen=True)
class Run:
    """``memory``: of each kind of process the highest peak in bytes that one of them had; ``cpu``: the seconds of all
    of them together, ``kinds`` those that were seen of each kind. ``others``: as many cores, on average, were busy with
    something else. ``moved``: bytes that passed the host's network in both directions, None without one."""

    seconds: float
    memory: dict[str, int]
    cpu: float
    kinds: dict[str, float]
    others: float
    moved: int | None = None
    answer: dict[str, Any] = field(default_factory=dict)


class Elsewhere:
    """What happens outside of the processes that a command starts on this machine: on a host, on its cable."""

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the host has used since its start."""
        return 0.0

    def moved_bytes(self) -> int | None:
        """Return the bytes that have passed the host's cable."""
        return None


def run(command: Command, elsewhere: Elsewhere | None = None) -> Run:
    """Run a command to its end. Raises RunFailed for an exit status other than 0."""
    elsewhere = elsewhere or Elsewhere()
    with _watching() as watch:
        moved, host_cpu, cpu = elsewhere.moved_bytes(), elsewhere.cpu_seconds(), _cpu_of_children()
        busy = _busy_seconds()
        begun = time.monotonic()
        process = subprocess.Popen(
            [os.fspath(word) for word in command.words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command.environment,
            cwd=command.directory,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate()
            raise
        seconds = time.monotonic() - begun
        busy = _busy_seconds() - busy
        cpu = _cpu_of_children() - cpu + elsewhere.cpu_seconds() - host_cpu
        moved_after = elsewhere.moved_bytes()
    if process.returncode != 0:
        said = "\n".join(text.decode("utf-8", "replace")[-2000:].strip() for text in (output, errors))
        raise RunFailed(f"exit status {process.returncode} of {' '.join(map(str, command.words))[:300]}\n{said}")
    answer = json.loads(output.splitlines()[-1]) if command.answers else {}
    passed = None if moved is None or moved_after is None else moved_after - moved
    return Run(seconds, watch.memory(), cpu, watch.cpu(), max(0.0, busy - cpu) / seconds, passed, answer)


def _cpu_of_children() -> float:
    """Return the CPU seconds of all processes that have ended below this one, and were waited for by their parents."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _busy_seconds() -> float:
    """Return the CPU seconds of everything that ran since the machine was started, over all cores."""
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(
        int, Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + interrupts + soft + stolen) / _TICKS


def touch_memory(directory: Path, size: int) -> None:
    """Write ``size`` bytes to a file system in memory and take them away again.

    What runs a virtual machine may take back memory that was freed. Getting it again costs several seconds a gigabyte,
    which would fall to whoever needs it next.
    """
    piece = bytes(1 << 20)
    ballast = directory / "ballast"
    try:
        with ballast.open("wb", buffering=0) as stream:
            for _piece in range(size >> 20):
                stream.write(piece)
    finally:
        ballast.unlink()


@contextmanager
def _watching() -> Iterator[_Watch]:
    watch = _Watch()
    thread = threading.Thread(target=watch.look_again_and_again, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        thread.join()


@dataclass
class _Seen:
    peak: int = 0
    cpu: float = 0.0


class _Watch:
    """Looks at the processes below this one that were not there at the beginning."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._seen: dict[tuple[int, str, str], _Seen] = {}
        self._before = {(pid, fields[19]) for pid, fields, _name, _place in _below(os.getpid(), "", "")}

    def look_again_and_again(self) -> None:
        while not self.stop.wait(LOOK_SECONDS):
            for pid, fields, name, place in _below(os.getpid(), "", ""):
                began = fields[19]
                if (pid, began) in self._before:
                    continue
                peak = _peak(pid)
                if peak is None:
                    continue
                seen = self._seen.setdefault((pid, began, name + place), _Seen())
                seen.peak = max(seen.peak, peak)
                seen.cpu = (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for (_pid, _began, name), seen in self._seen.items():
            found[name] = max(found.get(name, 0), seen.peak)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def cpu(self) -> dict[str, float]:
        # What a process did before it became another program counts for its last name.
        last: dict[tuple[int, str], str] = {(pid, began): name for pid, began, name in self._seen}
        found: dict[str, float] = {}
        for (pid, began), name in last.items():
            found[name] = round(found.get(name, 0.0) + self._seen[pid, began, name].cpu, 2)
        return found


def _below(pid: int, parent: str, place: str) -> Iterator[tuple[int, list[str], str, str]]:
    """Yield (pid, fields of /proc/PID/stat after the name, kind, "" or ON_HOST) of all descendants of a process."""
    for child in _children(pid):
        try:
            command, _end, rest = Path(f"/proc/{child}/stat").read_text("utf-8", "replace").rpartition(")")
            arguments = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        program = command.partition("(")[2]
        kind = _kind(program, arguments, parent)
        yield child, rest.split(), kind, place
        yield from _below(child, kind, ON_HOST if program == "systemd-nspawn" else place)


def _kind(program: str, arguments: bytes, parent: str) -> str:
    if program.startswith("ansible-playboo"):
        return "ansible worker" if parent.startswith("ansible") else "ansible"
    if program.startswith("ansible"):
        return "ansible"
    if program.startswith("python"):
        # The controller's own job holds the command that starts the agent.
        if b"tests.benchmark.ours" in arguments:
            return "controller"
        if _AGENT_MARK in arguments:
            return "agent"
        if b"AnsiballZ" in arguments:
            return "module"
        return "python"
    return program


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text("ascii").split())
    except OSError:
        pass
    return found


def _peak(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)
