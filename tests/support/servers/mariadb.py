# SPDX-License-Identifier: GPL-3.0-or-later
"""A private MariaDB server on this machine."""

from __future__ import annotations

import os
import pwd
import socket as sockets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.support.hosts.commands import execute
from tests.support.servers.process import (
    ServerError,
    ServerProcess,
    account_without_rights,
    cached_template,
    free_port,
    require_program,
    run_as,
)

PACKAGE = "mariadb-server"
# What survives the death of all processes is enough: no test cuts this machine's power.
SETTINGS = {
    "innodb-flush-log-at-trx-commit": "2",
    "innodb-flush-method": "fsync",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "16M",
    "max-allowed-packet": "64M",
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_general_ci",
    "default-time-zone": "+00:00",
    "performance-schema": "OFF",
}


class MariaServer(ServerProcess):
    """A MariaDB server (utf8mb4), started and removed by `with`.

    `socket` is its unix socket; with tcp it also listens on 127.0.0.1 at `port`. Whoever runs the tests comes in as
    administrator through the socket, without a password; nobody else does. `settings` are options of mariadbd.
    """

    def __init__(self, *, tcp: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self._server = require_program("mariadbd", PACKAGE)
        super().__init__("mysql")
        self.data = self.directory / "data"
        self.socket = self.directory / "server.sock"
        self.port = free_port()
        self._tcp = tcp
        self._settings = {**SETTINGS, **(settings or {})}

    def prepare(self) -> None:
        template = cached_template(f"mariadb-data-{self._release()}-{_own_name()}-1", self._build_template)
        execute(["cp", "-a", template / "data", self.data])
        self.own(self.data)
        self.own(self.directory)  # its socket lies there

    def command(self) -> list[str]:
        network = ["--bind-address=127.0.0.1", f"--port={self.port}"] if self._tcp else ["--skip-networking"]
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        files = [f"--datadir={self.data}", f"--socket={self.socket}", f"--pid-file={self.directory / 'pid'}"]
        return [self._server, "--no-defaults", *files, *network, "--skip-name-resolve", "--skip-log-bin", *options]

    def answers(self) -> bool:
        try:
            with sockets.socket(sockets.AF_UNIX) as client:
                client.settimeout(2)
                client.connect(str(self.socket))
                return len(client.recv(5)) == 5  # the greeting's head
        except OSError:
            return False

    # Databases

    def url(
        self, database: str, user: str, password: str | None = None, *, socket: bool = False, scheme: str = "mysql"
    ) -> str:
        """Return the URL of a database as Papermerge writes it, percent-encoded; through the socket when told so."""
        login = quote(user, safe="") + ("" if password is None else ":" + quote(password, safe=""))
        if socket or not self._tcp:
            query = urlencode({"unix_socket": str(self.socket)}, safe="/")
            return f"{scheme}://{login}@localhost/{quote(database, safe='')}?{query}"
        return f"{scheme}://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def execute(self, sql: str | bytes, database: str = "") -> str:
        """Run SQL as the administrator until its first error.

        Returns a line a row, fields apart by a tab, NULL as "NULL", with tabs, newlines and backslashes escaped.
        Raises ServerError with the client's message.
        """
        words = [require_program("mariadb", "mariadb-client"), "--no-defaults", f"--socket={self.socket}"]
        options = ["--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--max-allowed-packet=64M"]
        # Without --binary-mode the client takes \\r\\n and its own commands out of what is loaded.
        completed = execute([*words, *options, "--binary-mode", database], check=False, input=sql, timeout=600)
        if completed.returncode != 0:
            raise ServerError(f"mariadb ended with {completed.returncode}: {completed.stderr.strip()[-2000:]}")
        return completed.stdout

    def rows(self, query: str, database: str = "") -> list[tuple[str, ...]]:
        """Return the rows of a query, every value as MariaDB writes it, NULL as "NULL". Raises ServerError."""
        lines = self.execute(query, database).split("\n")[:-1]
        return [tuple(_unescaped(field) for field in line.split("\t")) for line in lines]

    def count(self, table: str, database: str) -> int:
        """Return the number of rows of a table. Raises ServerError."""
        return int(self.execute(f"select count(*) from {identifier(table)}", database))

    def databases(self) -> list[str]:
        """Return the names of all databases but MariaDB's own, sorted."""
        own = {"information_schema", "mysql", "performance_schema", "sys"}
        return sorted(name for (name,) in self.rows("show databases") if name not in own)

    def create_user(self, name: str, password: str) -> None:
        """Make a user that may connect from anywhere. Raises ServerError."""
        self.execute(f"create user {literal(name)}@'%' identified by {literal(password)}")

    def create_database(self, name: str, owner: str | None = None, options: str = "") -> None:
        """Make a database, with all rights on it for the owner. Options such as "character set latin1".

        Raises ServerError.
        """
        self.execute(f"create database {identifier(name)} {options}")
        if owner is not None:
            pattern = identifier(name.replace("_", "\\_").replace("%", "\\%"))
            self.execute(f"grant all privileges on {pattern}.* to {literal(owner)}@'%'")

    def drop_database(self, name: str) -> None:
        """Remove a database; fine when there is none."""
        self.execute(f"drop database if exists {identifier(name)}")

    def load(self, dump: Path, database: str) -> None:
        """Load a dump of mysqldump or mariadb-dump. Raises ServerError at the first error."""
        self.execute(dump.read_bytes(), database)

    def _release(self) -> str:
        said = execute([self._server, "--no-defaults", "--version"]).stdout  # "mariadbd  Ver 10.11.19-MariaDB-…"
        return said.split("Ver ")[1].split("-")[0]

    def _build_template(self, directory: Path) -> None:
        account = account_without_rights("mysql")
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
        administrator = ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={_own_name()}"]
        small = [f"--innodb-log-file-size={SETTINGS['innodb-log-file-size']}", "--innodb-flush-method=nosync"]
        install = require_program("mariadb-install-db", PACKAGE)
        data = directory / "data"
        run_as(account, [install, "--no-defaults", f"--datadir={data}", "--skip-test-db", *administrator, *small])


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _unescaped(field: str) -> str:
    plain = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
    pieces, rest = [], field
    while "\\" in rest:
        before, _backslash, after = rest.partition("\\")
        pieces += [before, plain.get(after[:1], "\\" + after[:1])]
        rest = after[1:]
    return "".join([*pieces, rest])


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
