# SPDX-License-Identifier: GPL-3.0-or-later
"""A private PostgreSQL cluster on this machine."""

from __future__ import annotations

import os
import re
import signal
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
    run_as,
)
from tests.support.servers.releases import clients_of, installed_major, server_of

SUPERUSER = "postgres"
_FIELD, _RECORD = "\x1f", "\x1e"

# The superuser comes in without a password, and only through the socket; nobody else does.
ACCESS = f"""
local all {SUPERUSER} trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""
# What survives the death of all processes is enough: no test cuts this machine's power.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "max_connections": "60",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "lc_messages": "C",
    "timezone": "UTC",
    "dynamic_shared_memory_type": "posix",
}


class PostgresServer(ServerProcess):
    """A cluster (UTF-8, C.UTF-8) of the major version (default: the installed one), started and removed by `with`.

    `socket` is the directory to give as host, `port` belongs to the socket and, with tcp, to 127.0.0.1. `clients` is
    the directory of the pg_dump, psql and pg_restore that it is used with. `settings` are added to its configuration.
    `icu` false: a build of 16 or 18 without ICU.
    """

    def __init__(
        self,
        major: int | None = None,
        *,
        tcp: bool = True,
        settings: Mapping[str, str] | None = None,
        icu: bool = True,
    ) -> None:
        self.major = installed_major() if major is None else major
        self.clients = clients_of(self.major)
        self._programs = server_of(self.major, icu=icu)
        super().__init__("postgres")
        self.data = self.directory / "data"
        self.socket = self.directory / "socket"
        self.port = free_port()
        self._tcp = tcp
        self._icu = icu
        self._settings = {**SETTINGS, **(settings or {})}

    def prepare(self) -> None:
        name = f"postgresql-cluster-{self.major}-{'icu' if self._icu else 'plain'}-1"
        template = cached_template(name, self._build_template)
        execute(["cp", "-a", template / "data", self.data])
        self.data.chmod(0o700)
        self.socket.mkdir()
        (self.data / "pg_hba.conf").write_text(ACCESS, encoding="ascii")
        lines = [f"{name} = '{value}'\n" for name, value in self._settings.items()]
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as configuration:
            configuration.writelines(lines)
        self.own(self.data, self.socket)
        self.socket.chmod(0o755)

    def command(self) -> list[str]:
        listen = "127.0.0.1" if self._tcp else ""
        options = ["-k", str(self.socket), "-p", str(self.port), "-c", f"listen_addresses={listen}"]
        return [str(self._programs / "postgres"), "-D", str(self.data), *options]

    def answers(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self.pid)] and lines[7:8] != [] and lines[7].strip() == "ready"

    def stop(self, how: signal.Signals = signal.SIGINT, seconds: float = 60) -> None:
        """End the server (fast shutdown: sessions are ended; SIGTERM waits for them) and wait for that."""
        super().stop(how, seconds)

    # Databases

    def url(
        self, database: str, user: str, password: str | None = None, *, socket: bool = False, scheme: str = "postgresql"
    ) -> str:
        """Return the URL of a database as Papermerge writes it, percent-encoded; through the socket when told so."""
        login = quote(user, safe="") + ("" if password is None else ":" + quote(password, safe=""))
        if socket or not self._tcp:
            query = urlencode({"host": str(self.socket), "port": self.port}, safe="/")
            return f"{scheme}://{login}@/{quote(database, safe='')}?{query}"
        return f"{scheme}://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def execute(self, sql: str | bytes, database: str = "postgres", role: str | None = None) -> str:
        """Run SQL (psql's own commands included) as the superuser, as the role if given, until its first error.

        Returns what psql prints: a line a row, fields apart by "|". Raises ServerError with psql's message.
        """
        return self._psql(database, role, sql)

    def rows(self, query: str, database: str = "postgres") -> list[tuple[str, ...]]:
        """Return the rows of a query, every value as PostgreSQL writes it, NULL as "". Raises ServerError."""
        output = self._psql(database, None, query, "--field-separator", _FIELD, "--record-separator", _RECORD)
        output = output.removesuffix("\n").removesuffix(_RECORD)
        return [tuple(record.split(_FIELD)) for record in output.split(_RECORD)] if output else []

    def count(self, table: str, database: str) -> int:
        """Return the number of rows of a table. Raises ServerError."""
        return int(self.execute(f"select count(*) from {table}", database))

    def databases(self) -> list[str]:
        """Return the names of all databases but the templates, sorted."""
        names = 'select datname from pg_database where not datistemplate order by datname collate "C"'
        return [name for (name,) in self.rows(names)]

    def create_role(self, name: str, password: str | None = None, attributes: str = "") -> None:
        """Make a role that can log in; attributes such as CREATEDB. Raises ServerError."""
        word = "" if password is None else f" password {literal(password)}"
        self.execute(f"create role {identifier(name)} login{word} {attributes}")

    def create_database(self, name: str, owner: str = SUPERUSER, options: str = "") -> None:
        """Make a database; options such as "encoding 'LATIN1' locale 'C' template template0". Raises ServerError."""
        self.execute(f"create database {identifier(name)} owner {identifier(owner)} {options}")

    def drop_database(self, name: str) -> None:
        """Remove a database with its sessions; fine when there is none."""
        self.execute(f"drop database if exists {identifier(name)} with (force)")

    def load(self, dump: Path, database: str, owner: str | None = None) -> None:
        """Load a plain or a custom dump of pg_dump, as the owner if given. Raises ServerError at the first error."""
        with dump.open("rb") as stream:
            is_custom = stream.read(5) == b"PGDMP"
        if is_custom:
            options = ["--exit-on-error", "--no-owner", *([f"--role={owner}"] if owner else [])]
            self._client("pg_restore", [*options, "--dbname", database, str(dump)])
        else:
            self._psql(database, owner, dump.read_bytes())

    def dump(self, database: str, to: Path) -> None:
        """Write a custom dump of a database with the pg_dump that fits this server. Raises ServerError."""
        self._client("pg_dump", ["-Fc", "-Z0", "--file", str(to), database])

    def _psql(self, database: str, role: str | None, sql: str | bytes, *options: str) -> str:
        # An error of what is loaded must not print the megabytes that it stands in.
        fixed = [
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            "--set=VERBOSITY=terse",
        ]
        return self._client("psql", [*fixed, *options, "--file=-", database], role, sql)

    def _client(
        self, program: str, arguments: list[str], role: str | None = None, data: str | bytes | None = None
    ) -> str:
        options = ["PGCLIENTENCODING=UTF8", f"PGOPTIONS={role_option(role)}"]
        place = ["--host", str(self.socket), "--port", str(self.port), "--username", SUPERUSER]
        words = ["env", *options, str(self.clients / program), *place, "--no-password", *arguments]
        completed = execute(words, check=False, input=data, timeout=600)
        if completed.returncode != 0:
            raise ServerError(f"{program} ended with {completed.returncode}: {completed.stderr.strip()[-2000:]}")
        return completed.stdout

    def _build_template(self, directory: Path) -> None:
        account = account_without_rights("postgres")
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
        # Small WAL files, because each cluster starts with a copy of one.
        options = ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--wal-segsize=1", "--auth=trust"]
        run_as(account, [self._programs / "initdb", *options, f"--username={SUPERUSER}", "-D", directory / "data"])


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text for SQL."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'" if "\\" not in text else "E'" + escaped.replace("\\", "\\\\") + "'"


def role_option(role: str | None) -> str:
    """Return what PGOPTIONS has to be for a session that acts as the role from its start."""
    return "" if role is None else "-c role=" + re.sub(r"[\s\\]", r"\\\g<0>", role)
