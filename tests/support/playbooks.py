# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs playbooks as a user does, from a command line, and reads what that user would see."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.hosts.commands import execute

CHECKOUT = Path(__file__).resolve().parents[2]
COLLECTION = "papermerge.backup"
SECONDS = 240

_RECAP = re.compile(r"(?P<host>\S+)\s+:\s+(?P<counts>(?:\w+=\d+\s*)+)$")
_RULE = re.compile(r"-+(?:  -+)*$")

Inventory = Mapping[str, Mapping[str, Any]]
"""The variables of each host of the group papermerge."""


@dataclasses.dataclass(frozen=True)
class PlaybookRun:
    """What a finished run left: its exit status and everything that it printed."""

    status: int
    output: str
    errors: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The play recap: of each host its counts, such as ok, failed and unreachable."""
        found = {}
        for line in self.output.partition("PLAY RECAP")[2].splitlines():
            match = _RECAP.match(line)
            if match:
                pairs = (pair.split("=") for pair in match["counts"].split())
                found[match["host"]] = {name: int(count) for name, count in pairs}
        return found

    @property
    def tables(self) -> list[list[dict[str, str]]]:
        """Every closing table that was printed, as rows by column; there is one unless something went wrong."""
        lines = self.output.splitlines()
        found = []
        for number, line in enumerate(lines):
            if number and _RULE.match(line):
                starts = [match.start() for match in re.finditer(r"-+", line)]
                ends = [*starts[1:], None]

                def cells(text: str, starts: Sequence[int] = starts, ends: Sequence[int | None] = ends) -> list[str]:
                    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]

                heads = cells(lines[number - 1])
                rows = itertools.takewhile(str.strip, lines[number + 1 :])
                found.append([dict(zip(heads, cells(row), strict=True)) for row in rows])
        return found

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the one closing table."""
        assert len(self.tables) == 1, f"{len(self.tables)} tables in:\n{self}"
        return self.tables[0]

    def results(self, key: str = "host") -> dict[str, str]:
        """The column `result` of the closing table by host, which must not name a host twice."""
        hosts = [row[key] for row in self.rows]
        assert len(hosts) == len(set(hosts)), f"a host twice in the table:\n{self}"
        return {row[key]: row["result"] for row in self.rows}

    def row(self, host: str, key: str = "host") -> dict[str, str]:
        """The one row of a host in the closing table."""
        (row,) = (row for row in self.rows if row[key] == host)
        return row

    def message(self, host: str) -> str:
        """What stands below the closing table about a host; empty when nothing does."""
        after = self.output.rpartition("\n---")[2]
        found = [line for line in after.partition("PLAY RECAP")[0].splitlines() if line.startswith(f"{host}: ")]
        return "\n".join(line.removeprefix(f"{host}: ") for line in found)

    def says(self, text: str) -> bool:
        """Tell whether the text was printed, to either stream."""
        return text in self.output or text in self.errors

    def __str__(self) -> str:
        return f"exit status {self.status}\n{self.output}\n{self.errors}"


class Playbooks:
    """Runs playbooks with a home directory of their own, so that the default repository is `repository`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repository = home / "papermerge-backups"
        self._numbers = itertools.count(1)
        home.mkdir(parents=True, exist_ok=True)
        (home / "ansible.cfg").touch()

    def command(
        self,
        playbook: str | Path,
        inventory: Inventory,
        *,
        options: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Return the command line; a playbook without a slash is one of the collection, such as `create`."""
        number = next(self._numbers)
        place = self.home / f"inventory-{number}.yml"
        place.write_text(json.dumps({"papermerge": {"hosts": dict(inventory)}}), encoding="utf-8")
        place.chmod(0o600)
        name = str(playbook) if isinstance(playbook, Path) else f"{COLLECTION}.{playbook}"
        program = Path(sys.executable).with_name("ansible-playbook")
        variables = [word for key, value in (extra or {}).items() for word in ("-e", f"{key}={value}")]
        return [str(program), name, "-i", str(place), *variables, *options]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a run: nothing of the user's own Ansible settings gets in."""
        inherited = {name: os.environ[name] for name in ("PATH", "VIRTUAL_ENV") if name in os.environ}
        return {
            **inherited,
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self.home / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORKS": "5",
            **(more or {}),
        }

    def start(
        self,
        playbook: str | Path,
        inventory: Inventory,
        *,
        options: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a run; `finish` waits for it."""
        return subprocess.Popen(
            self.command(playbook, inventory, options=options, extra=extra),
            cwd=self.home,
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> PlaybookRun:
        """Wait for a run and return what it left; after SECONDS it is killed and TimeoutExpired raised."""
        try:
            output, errors = process.communicate(timeout=SECONDS)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return PlaybookRun(process.returncode, output, errors)

    def run(
        self,
        playbook: str | Path,
        inventory: Inventory,
        *,
        options: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> PlaybookRun:
        """Run a playbook to its end. `inventory`: of each host of the group papermerge its variables."""
        return self.finish(self.start(playbook, inventory, options=options, extra=extra, environment=environment))

    def snapshots(self, instance: str) -> list[Path]:
        """The directories of an instance's committed snapshots, oldest first."""
        return sorted((self.repository / instance / "snapshots").glob("*"))


def tree(directory: Path, *ignored: str) -> dict[str, tuple[int, int, bytes | str | None]]:
    """Return mode, modification time and content of everything below a directory, to be compared with a later look.

    Files and directories whose names are in `ignored` are left out, with all that is below them.
    """
    found: dict[str, tuple[int, int, bytes | str | None]] = {}
    for place, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name not in ignored]
        for name in [*directories, *(name for name in files if name not in ignored)]:
            path = Path(place) / name
            status = path.lstat()
            content: bytes | str | None = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(directory))] = (status.st_mode, status.st_mtime_ns, content)
    return found


class ProcessWatch:
    """Looks at the arguments of every process of this machine, those of its hosts included, again and again."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.looks = 0
        self._stop = threading.Event()

    def _look(self) -> None:
        known: dict[str, str] = {}
        while not self._stop.is_set():
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        line = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ")
                    except OSError:
                        continue
                    text = line.decode("utf-8", "replace")
                    # A process may replace its arguments by those of another program.
                    if known.get(name) != text:
                        known[name] = text
                        self.seen.add(text)
            self.looks += 1
            time.sleep(0.005)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look as long as the block runs."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def with_word(self, word: str) -> list[str]:
        """The command lines that were seen with this text in them."""
        return sorted(line for line in self.seen if word in line)


def files_with(text: str, *directories: Path) -> list[str]:
    """Return the files below the directories whose content has the text in it."""
    places = [str(directory) for directory in directories]
    found = execute(
        ["grep", "--recursive", "--files-with-matches", "--fixed-strings", "-D", "skip", "-e", text, *places],
        check=False,
    )
    return found.stdout.splitlines()
