# SPDX-License-Identifier: GPL-3.0-or-later
"""A database server as a child process: a directory of its own, an account without rights, an end that is certain."""

from __future__ import annotations

import fcntl
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.hosts.commands import BenchError, execute
from tests.support.hosts.storage import claim_directory, remove_tree

#: Short, because the path of a unix socket has 107 bytes at most. Not in memory: the collection refuses to copy there.
SERVERS = "/var/tmp/papermerge-backup-servers-{uid}"
START_SECONDS = 60.0


class ServerError(BenchError):
    """A database server cannot do what was asked; the message holds what it or its client said."""


class ServerProcess:
    """What PostgresServer, MariaServer and PgBouncer share. A context manager: started at its begin, gone at its end.

    It also ends with the thread that starts it, so that must not be one of a pool.

    `directory` holds all of the server's files and its unix socket; other users of the machine can reach the socket.
    `log` is what the server wrote to its standard error. What a killed test run left is removed by the next server.
    """

    def __init__(self, account: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._account = account_without_rights(account)
        self.directory, self._claim = _claim_directory()
        self.log = self.directory / "log"

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def prepare(self) -> None:
        """Put the server's files in place. Raises ServerError."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """The server's own command line, to be run in the foreground."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether the server takes connections."""
        raise NotImplementedError

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id. Raises ServerError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"the server in {self.directory} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it answers. Raises ServerError with the end of its log."""
        if self.is_running:
            raise ServerError(f"the server in {self.directory} is running already")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                # Nobody would stop a server whose test run was killed.
                [*self.as_account(), "setpriv", "--pdeathsig", "KILL", *self.command()],
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._has_started, START_SECONDS)
        except TimeoutError:
            raise ServerError(f"no answer after {START_SECONDS:g} s: {self._last_words()}") from None

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 60) -> None:
        """Let the server end and wait for that; fine when it does not run. Raises ServerError after the seconds."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ServerError(f"not ended {seconds:g} s after {how.name}: {self._last_words()}") from None

    def kill(self) -> None:
        """End the server and its children at once, as a crash does; `start` lets it recover."""
        if self._process is None:
            return
        children = [] if self._process.poll() is not None else children_of(self._process.pid)
        self._process.kill()
        self._process.wait(10)
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_until(lambda: not any(_is_alive(child) for child in children), 10)

    def remove(self) -> None:
        """End the server and remove its directory; fine when called twice."""
        if self._claim < 0:
            return
        self.kill()
        remove_tree(self.directory)
        os.close(self._claim)
        self._claim = -1

    def as_account(self) -> list[str]:
        """The start of a command line that runs the rest of it as the server's account."""
        return _setpriv(self._account)

    def own(self, *paths: Path) -> None:
        """Give the paths and all below them to the server's account."""
        if self._account is not None:
            execute(["chown", "-R", f"{self._account.pw_uid}:{self._account.pw_gid}", "--", *paths])

    def _has_started(self) -> bool:
        assert self._process is not None
        ended = self._process.poll()
        if ended is not None:
            raise ServerError(f"ended with {ended}: {self._last_words()}")
        return self.answers()

    def _last_words(self) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        return f"{shlex.join(self.command())}\n{said}"


def servers_directory() -> Path:
    """Return the directory of this user's servers; others can enter it."""
    directory = Path(SERVERS.format(uid=os.geteuid()))
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    return directory


def account_without_rights(name: str) -> pwd.struct_passwd | None:
    """Return the account that servers run as when the tests are root, `nobody` where there is none of that name.

    None for who is not root: servers then run as oneself.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return pwd.getpwnam("nobody")


def cached_template(name: str, build: Callable[[Path], None]) -> Path:
    """Return a directory that is made once on this machine: build fills an empty one, which then gets its name.

    It lies in ${XDG_CACHE_HOME:-~/.cache}/papermerge-backup. One process builds, others wait.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "papermerge-backup"
    template = cache / name
    if template.is_dir():
        return template
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.is_dir():
            # The cache is in a home that a server's account cannot enter.
            building, claim = _claim_directory()
            try:
                made = building / "made"
                made.mkdir()
                build(made)
                unfinished = cache / f"{name}.unfinished"
                remove_tree(unfinished)
                execute(["cp", "-a", made, unfinished], timeout=600)
                unfinished.rename(template)
            finally:
                remove_tree(building)
                os.close(claim)
    return template


def run_as(account: pwd.struct_passwd | None, command: Sequence[str | os.PathLike[str]]) -> None:
    """Run a program as the account to its end. Raises BenchError."""
    execute([*_setpriv(account), *command], timeout=300)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return as soon as the condition holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def children_of(process: int) -> list[int]:
    """Return the processes that the process has started and that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
            except OSError:  # it has just ended
                continue
            if int(parent) == process:
                found.append(int(entry.name))
    return found


def _is_alive(process: int) -> bool:
    # An orphan may stay a zombie for a while, until this machine's init looks.
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def require_program(name: str, package: str) -> str:
    """Return the program's path. Raises ServerError when it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if found is None:
        raise ServerError(f"{name} is not installed; run apt-get install --no-install-recommends {package}")
    return found


def _setpriv(account: pwd.struct_passwd | None) -> list[str]:
    if account is None:
        return []
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def _claim_directory() -> tuple[Path, int]:
    """Return a directory of one's own and the descriptor that keeps it; removes those of processes that are dead."""
    mine: tuple[Path, int] | None = None
    parent = servers_directory()
    for number in range(1000):
        directory = parent / str(number)
        if mine is not None and not directory.exists():
            continue
        descriptor = claim_directory(directory)
        if descriptor is None:
            continue
        if mine is None:
            for entry in directory.iterdir():
                remove_tree(entry)
            mine = directory, descriptor
        else:
            remove_tree(directory)
            os.close(descriptor)
    if mine is None:
        raise ServerError(f"1000 servers in {parent} are in use")
    mine[0].chmod(0o755)
    return mine
