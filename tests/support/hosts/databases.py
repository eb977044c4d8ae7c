# SPDX-License-Identifier: GPL-3.0-or-later
"""The database servers of a test host: started when a test wants them, filled, counted."""

from __future__ import annotations

import shlex
from typing import Literal
from urllib.parse import quote

from tests.support.hosts.host import Host
from tests.support.servers import mariadb, postgres

Engine = Literal["postgresql", "mysql"]

_SERVICES = {"postgresql": "postgresql@15-main.service", "mysql": "mariadb.service"}
_PORTS = {"postgresql": 5432, "mysql": 3306}


class HostDatabases:
    """One engine on one host. PostgreSQL 15 on port 5432, or MariaDB 10.11 on 3306: its defaults of Debian.

    Both listen on the host's 127.0.0.1 and their unix sockets only. Everything is done as the server's administrator,
    by way of the socket.
    """

    def __init__(self, host: Host, engine: Engine) -> None:
        self.host = host
        self.engine = engine

    def start(self) -> None:
        """Start the server and return when it answers: some 2 s for PostgreSQL. Raises BenchError."""
        self.host.run(["systemctl", "start", _SERVICES[self.engine]], timeout=120)

    def stop(self) -> None:
        """Stop the server. Raises BenchError."""
        self.host.run(["systemctl", "stop", _SERVICES[self.engine]], timeout=120)

    def kill(self) -> None:
        """End all of the server's processes at once, as a crash does; systemd starts MariaDB again, not PostgreSQL."""
        self.host.run(["systemctl", "kill", "--signal=SIGKILL", _SERVICES[self.engine]])

    def url(self, name: str, user: str, password: str, *, scheme: str | None = None) -> str:
        """Return the URL of a database as Papermerge on this host writes it, percent-encoded."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"{scheme or self.engine}://{login}@127.0.0.1:{_PORTS[self.engine]}/{quote(name, safe='')}"

    def create(self, name: str, user: str, password: str) -> str:
        """Make a role, or give the one that there is this password, and an empty database of its own; return its URL.

        Raises BenchError.
        """
        if self.engine == "postgresql":
            role, secret = postgres.identifier(user), postgres.literal(password)
            if self.execute(f"select 1 from pg_roles where rolname = {postgres.literal(user)}") == "":
                self.execute(f"create role {role} login")
            self.execute(f"alter role {role} password {secret}")
            self.execute(f"create database {postgres.identifier(name)} owner {role} template template0")
        else:
            account, secret = f"{mariadb.literal(user)}@'%'", mariadb.literal(password)
            pattern = mariadb.identifier(name.replace("_", "\\_"))
            self.execute(
                f"create user if not exists {account}; alter user {account} identified by {secret}; "
                f"create database {mariadb.identifier(name)} character set utf8mb4; "
                f"grant all privileges on {pattern}.* to {account}"
            )
        return self.url(name, user, password)

    def load(self, name: str, dump: bytes, owner: str | None = None) -> None:
        """Load a dump into a database, as the owner if given: custom or plain of pg_dump, or of mysqldump.

        Raises BenchError at the first error.
        """
        if self.engine == "postgresql" and dump.startswith(b"PGDMP"):
            role = ["--role", owner] if owner else []
            words = ["pg_restore", "--exit-on-error", "--no-owner", *role, "--dbname", name]
            self.host.run(words, user="postgres", input=dump, timeout=300)
        else:
            self.execute(dump, name, owner)

    def execute(self, sql: str | bytes, name: str | None = None, role: str | None = None) -> str:
        """Run SQL until its first error, with PostgreSQL as the role if given, and return what the client prints.

        A line a row, fields apart by "|" (PostgreSQL) or a tab. Raises BenchError.
        """
        if self.engine == "postgresql":
            options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-"]
            words = ["env", f"PGOPTIONS={postgres.role_option(role)}", "psql", *options, name or "postgres"]
            return self.host.run(words, user="postgres", input=sql, timeout=300).stdout
        options = ["--batch", "--skip-column-names", "--binary-mode", "--default-character-set=utf8mb4"]
        words = ["mariadb", *options, "--max-allowed-packet=64M", name or ""]
        return self.host.run(words, input=sql, timeout=300).stdout

    def counts(self, name: str, tables: list[str] | None = None) -> dict[str, int]:
        """Return the number of rows of the tables, or of all tables of the database. Raises BenchError."""
        if tables is None:
            schema = "public" if self.engine == "postgresql" else name
            tables = self.execute(
                "select table_name from information_schema.tables where table_type = 'BASE TABLE' "
                f"and table_schema = {mariadb.literal(schema)}",
                name,
            ).splitlines()
        mark = '"' if self.engine == "postgresql" else "`"
        queries = [f"select count(*) from {mark}{table}{mark};\n" for table in tables]
        numbers = self.execute("".join(queries), name).split()
        return dict(zip(tables, map(int, numbers), strict=True))

    def names(self) -> list[str]:
        """Return the names of the databases but for the server's own, sorted."""
        own = {"postgres", "information_schema", "mysql", "performance_schema", "sys"}
        query = "select datname from pg_database where not datistemplate"
        listed = self.execute(query if self.engine == "postgresql" else "show databases").splitlines()
        return sorted(set(listed) - own)

    def drop(self, name: str) -> None:
        """Remove a database with its sessions; fine when there is none. Raises BenchError."""
        if self.engine == "postgresql":
            self.execute(f"drop database if exists {postgres.identifier(name)} with (force)")
        else:
            self.execute(f"drop database if exists {mariadb.identifier(name)}")


def listen_on_the_network(host: Host) -> None:
    """Let PostgreSQL take passwords from other hosts of the bench too, from its next start. Raises BenchError."""
    directory = "/etc/postgresql/15/main"
    rule = shlex.quote("host all all 0.0.0.0/0 scram-sha-256")
    host.run(
        f"set -e; echo \"listen_addresses = '*'\" >{directory}/conf.d/network.conf; "
        f"grep -qxF {rule} {directory}/pg_hba.conf || echo {rule} >>{directory}/pg_hba.conf"
    )
