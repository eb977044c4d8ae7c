# SPDX-License-Identifier: GPL-3.0-or-later
"""A PgBouncer in front of a PostgresServer."""

from __future__ import annotations

import signal
import socket as sockets
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from tests.support.servers.postgres import PostgresServer
from tests.support.servers.process import ServerProcess, free_port, require_program

_SETTINGS = """
[databases]
* = host={backend} port={backend_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {socket}
auth_type = scram-sha-256
auth_file = {users}
pool_mode = {mode}
ignore_startup_parameters = extra_float_digits
default_pool_size = {size}
max_client_conn = 200
"""


class PgBouncer(ServerProcess):
    """A pooler for all databases of a server, for the roles whose passwords it is given; started and removed by `with`.

    It listens on 127.0.0.1 at `port` and in the directory `socket`. `size`: its connections to the server for each user
    and database.
    """

    def __init__(
        self,
        server: PostgresServer,
        passwords: Mapping[str, str],
        mode: Literal["transaction", "session", "statement"] = "transaction",
        size: int = 20,
    ) -> None:
        self._program = require_program("pgbouncer", "pgbouncer")
        super().__init__("postgres")
        self._server = server
        self._passwords = dict(passwords)
        self._mode = mode
        self._size = size
        self.port = free_port()
        self.socket = self.directory / "socket"
        self._configuration = self.directory / "pgbouncer.ini"

    def prepare(self) -> None:
        self.socket.mkdir()
        users = self.directory / "users"
        users.touch(mode=0o600)
        lines = [f"{_quoted(name)} {_quoted(password)}\n" for name, password in self._passwords.items()]
        users.write_text("".join(lines), encoding="utf-8")
        settings = _SETTINGS.format(
            backend=self._server.socket,
            backend_port=self._server.port,
            port=self.port,
            socket=self.socket,
            users=users,
            mode=self._mode,
            size=self._size,
        )
        self._configuration.write_text(settings, encoding="utf-8")
        self.own(users, self._configuration, self.socket)

    def command(self) -> list[str]:
        return [self._program, str(self._configuration)]

    def answers(self) -> bool:
        try:
            with sockets.create_connection(("127.0.0.1", self.port), timeout=2):
                return Path(self.socket, f".s.PGSQL.{self.port}").exists()
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 60) -> None:
        """End the pooler and wait for that."""
        super().stop(how, seconds)

    def url(self, database: str, user: str, *, scheme: str = "postgresql") -> str:
        """Return the URL of a database by way of the pooler, with the user's password."""
        login = f"{quote(user, safe='')}:{quote(self._passwords[user], safe='')}"
        return f"{scheme}://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
