# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away database server for a drill: made from the installed programs, on a unix socket only, dead with us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.client import MARIADB
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.programs import (
    PROGRAM_DIRECTORIES,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.session import connect, quote_name
from ansible_collections.papermerge.backup.plugins.module_utils.durable import make_private_directory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    SettingError,
    ToolError,
    UnsupportedError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.programs import (
    demotion,
    find_program,
    find_programs,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest

START_SECONDS, STOP_SECONDS = 60.0, 30.0
#: A path of a unix socket has so many bytes at most (unix(7)).
MAX_SOCKET_PATH = 107
#: No account of this name exists, so that client programs stay who they are.
SUPERUSER = "papermerge_drill"
DATABASE = "papermerge_drill_scratch"
#: What is kept of a program's words, for messages.
WORDS = 2000
_PR_SET_PDEATHSIG = 1


class ScratchServer(ABC):
    """A server below ``directory``, which is made and which the caller removes. A context manager.

    ``url``: where the drill's database goes. ``version``: what the server's program says of itself.
    """

    #: Accounts that servers run as when the drill is root, who may not run them: the first one that exists.
    ACCOUNTS: tuple[str, ...] = ()

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self._directory = directory
        self._facts = manifest.database
        self._process: subprocess.Popen[bytes] | None = None
        self._account = self._find_account()
        self._demote = demotion(self._account.pw_uid, self._account.pw_gid) if self._account else None
        self.version = ""
        longest = os.fsencode(directory / ".s.PGSQL.5432")
        if len(longest) > MAX_SOCKET_PATH:
            raise SettingError(
                f"{directory} is too long for the path of a unix socket; set papermerge_backup_drill_dir to a shorter "
                "path"
            )

    @property
    @abstractmethod
    def url(self) -> str:
        """The scratch database."""

    @abstractmethod
    def _install(self) -> None:
        """Make the server's files."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's command line, which stays in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the server takes connections."""

    @abstractmethod
    def _furnish(self) -> None:
        """Make what a restore expects to be there, once the server answers."""

    def __enter__(self) -> ScratchServer:
        make_private_directory(self._directory)
        if self._account is not None:
            os.chown(self._directory, self._account.pw_uid, self._account.pw_gid)
        try:
            self._install()
            self._start()
            self._furnish()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server with all its processes; its files are thrown away, so it need not tidy up."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGQUIT if self._process.poll() is None else signal.SIGKILL)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _find_account(self) -> pwd.struct_passwd | None:
        if os.geteuid() != 0:
            return None
        for name in (*self.ACCOUNTS, "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
        raise ToolError(
            "a database server does not run as root, and this machine has none of the accounts "
            f"{', '.join((*self.ACCOUNTS, 'nobody'))}; run the drill as another user"
        )

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._directory), "LC_ALL": "C", "TZ": "UTC"}

    def _run(self, argv: list[str]) -> str:
        """Run a program of the server to its end and return its words. Raises ToolError."""
        try:
            done = subprocess.run(
                argv, env=self._environment(), preexec_fn=dies_with_us(self._demote), cwd="/", stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        except OSError as error:
            raise ToolError(f"{argv[0]} cannot be run: {error.strerror}") from None
        words = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode != 0:
            raise ToolError(f"{argv[0]} ended with status {done.returncode}: {words[-WORDS:]}")
        return words

    def _start(self) -> None:
        log = self._directory / "log"
        with open(log, "ab") as stream:
            self._process = subprocess.Popen(
                self._command(), env=self._environment(), preexec_fn=dies_with_us(self._demote), cwd="/",
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text("utf-8", "replace").strip()[-WORDS:]
                raise ToolError(f"the scratch server {self._command()[0]} does not start: {words}")
            time.sleep(0.05)


def dies_with_us(demote: Callable[[], None] | None = None) -> Callable[[], None]:
    """Return what a child does before its program: give up rights, and die with us (prctl(2))."""
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def prepare() -> None:
        # After the change of rights, which would undo it.
        if demote is not None:
            demote()
        os.umask(0o077)
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


class ScratchPostgres(ScratchServer):
    """The oldest installed PostgreSQL that is not older than the snapshot's server."""

    ACCOUNTS = ("postgres",)

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        super().__init__(directory, manifest)
        source = int(self._facts.get("version_number", 0)) // 10000
        found: dict[int, Path] = {}
        for path in find_programs("postgres", PROGRAM_DIRECTORIES):
            version = re.search(r"\) (\d+)", self._run([path, "--version"]))
            if version and os.path.exists(os.path.join(os.path.dirname(path), "initdb")):
                found.setdefault(int(version.group(1)), Path(path))
        fitting = [major for major in found if major >= source]
        if not fitting:
            listed = ", ".join(map(str, sorted(found))) or "none"
            raise ToolError(
                f"the drill needs a PostgreSQL server of version {source} or later on the controller, and found "
                f"{listed}; install postgresql-{source} (Debian, Ubuntu) or postgresql{source}-server (packages of "
                "postgresql.org)"
            )
        self._program = found[min(fitting)]
        self.version = self._run([str(self._program), "--version"])

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self._directory))}&port=5432"

    def _install(self) -> None:
        self._run(
            [
                str(self._program.with_name("initdb")), "-D", str(self._directory / "data"), "-U", SUPERUSER,
                "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
            ]
        )  # fmt: skip

    def _command(self) -> list[str]:
        return [
            str(self._program), "-D", str(self._directory / "data"), "-k", str(self._directory), "-p", "5432",
            "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "max_wal_size=2GB",
        ]  # fmt: skip

    def _answers(self) -> bool:
        try:
            lines = (self._directory / "data" / "postmaster.pid").read_text("ascii").splitlines()
        except FileNotFoundError:
            return False
        return lines[7:8] != [] and lines[7].strip() == "ready"

    def _furnish(self) -> None:
        """Make the roles that the dump names: what they own or may has to be given to somebody."""
        place = parse_database_url(self._url("postgres"), "the scratch server")
        names = {str(name) for name in self._facts.get("roles") or []}
        names |= {str(grant[0]) for grant in self._facts.get("grants") or [] if grant[0]}
        with connect(place, "postgres") as session:
            for name in sorted(names - {SUPERUSER}):
                if not name.startswith("pg_"):
                    session.execute(f"create role {quote_name(name)}")


class ScratchMaria(ScratchServer):
    """The installed MariaDB."""

    ACCOUNTS = ("mysql",)

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        super().__init__(directory, manifest)
        if self._facts.get("flavour") != MARIADB:
            raise UnsupportedError(
                "the snapshot holds a database of MySQL, and a drill on the controller knows SQLite, PostgreSQL and "
                "MariaDB only; verify it with level deep, and restore it onto a host by hand"
            )
        self._program = find_program("mariadbd", ("/usr/libexec",)) or find_program("mysqld", ("/usr/libexec",))
        self._installer = find_program("mariadb-install-db") or find_program("mysql_install_db")
        if self._program is None or self._installer is None:
            missing = "mariadbd" if self._program is None else "mariadb-install-db"
            raise ToolError(f"the controller has no {missing}, which the drill needs; install mariadb-server")
        self.version = self._run([self._program, "--no-defaults", "--version"])

    @property
    def _socket(self) -> Path:
        return self._directory / "mysqld"

    @property
    def url(self) -> str:
        return f"mysql://root@localhost/{DATABASE}?unix_socket={quote(str(self._socket))}"

    def _install(self) -> None:
        # A password would keep out nobody whom the directory's mode lets in.
        options = ["--skip-test-db", "--auth-root-authentication-method=normal", *self._settings()]
        self._run([str(self._installer), "--no-defaults", f"--datadir={self._directory / 'data'}", *options])

    def _settings(self) -> list[str]:
        return [f"--lower-case-table-names={int(self._facts.get('lower_case_table_names') or 0)}"]

    def _command(self) -> list[str]:
        return [
            str(self._program), "--no-defaults", f"--datadir={self._directory / 'data'}", f"--socket={self._socket}",
            f"--pid-file={self._directory / 'pid'}", "--skip-networking", "--skip-log-bin", "--skip-name-resolve",
            "--character-set-server=utf8mb4", "--max-allowed-packet=1G", *self._settings(),
        ]  # fmt: skip

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(2)
                client.connect(str(self._socket))
                return len(client.recv(5)) == 5
        except OSError:
            return False

    def _furnish(self) -> None:
        """MariaDB's dumps name no accounts."""


SERVERS: dict[str, type[ScratchServer]] = {"postgresql": ScratchPostgres, "mysql": ScratchMaria}


def scratch_server(directory: Path, manifest: Manifest) -> ScratchServer | None:
    """Return the server that a snapshot's database is restored onto, not started; None for SQLite.

    Raises ToolError, naming what to install, UnsupportedError or SettingError.
    """
    if manifest.engine == "sqlite":
        return None
    kind = SERVERS.get(manifest.engine)
    if kind is None:
        raise UnsupportedError(f"a drill knows no server for a database of {manifest.engine}")
    return kind(directory, manifest)
