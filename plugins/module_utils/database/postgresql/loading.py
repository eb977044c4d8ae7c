# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive of pg_dump into a database, up to the first error."""

from __future__ import annotations

import threading
from typing import Dict, Iterator, List

from ...errors import BackupError
from ...programs import Program
from ..client import Client
from ..place import DatabasePlace
from .archive import read_head
from .messages import explain
from .programs import TRANSACTION_TIMEOUT_MAJOR, Tool, client_of, restore_tool
from .session import SETTINGS

#: pg_restore tells about the statement in the middle of what it writes; it comes before any table.
PREAMBLE_BYTES = 1 << 16
UNKNOWN_SETTING = b"SET transaction_timeout = 0;\n"
#: What a role or database may have set otherwise and pg_restore does not set by itself.
_OPTIONS: Dict[str, str] = {
    "PGOPTIONS": "-c default_transaction_read_only={0}".format(SETTINGS["default_transaction_read_only"])
}


def load_archive(place: DatabasePlace, database: str, server: int, content: Iterator[bytes]) -> None:
    """Restore an archive, owned by the place's user, into an empty database of a server of this major version.

    Raises DamageError for what is no archive, ToolError when no pg_restore here copes with it, and what that stumbles
    over.
    """
    client = client_of(place, database)
    head, pieces = read_head(content)
    tool = restore_tool(client, head.loader, server)
    argv = [tool.path, "--exit-on-error", "--no-owner", "--no-tablespaces"]
    if tool.major >= TRANSACTION_TIMEOUT_MAJOR > server:
        _through_psql(place, client, argv, tool, pieces)
        return
    with client.start(argv + ["--no-password", "--dbname=" + database], more=_OPTIONS) as run:
        _feed(run, pieces)
        _require_success(place, run, "pg_restore")


def _feed(run: Program, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        if not run.write(piece):
            return


def _require_success(place: DatabasePlace, run: Program, name: str) -> None:
    status = run.finish()
    if status != 0:
        raise explain(place, "restored", run.complaint or "{0} ended with status {1}".format(name, status))


def _through_psql(place: DatabasePlace, client: Client, argv: List[str], tool: Tool, pieces: Iterator[bytes]) -> None:
    """Restore onto a server that does not know a setting which a newer pg_restore speaks of: as a script without it."""
    # Beside pg_restore, because an older psql may not know a command of its script.
    psql = tool.path[: -len("pg_restore")] + "psql"
    options = ["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    problems: List[BaseException] = []
    with client.start(argv + ["--file=-"]) as writer, client.start([psql] + options, more=_OPTIONS) as reader:

        def pump() -> None:
            try:
                for piece in without_unknown_setting(writer.output()):
                    if not reader.write(piece):
                        # Its status tells why; what is still to come has to be taken all the same.
                        break
                for _piece in writer.output():
                    pass
            except BaseException as error:  # raised in the thread that feeds
                problems.append(error)

        def listen() -> None:
            # Functions that are called by the script answer something.
            for _piece in reader.output():
                pass

        threads = [threading.Thread(target=work, daemon=True) for work in (pump, listen)]
        for thread in threads:
            thread.start()
        _feed(writer, pieces)
        writer.close_input()
        threads[0].join()
        # An archive that ends early must not look like the end of the script.
        refusals: List[BackupError] = []
        for run, name in ((writer, "pg_restore"), (reader, "psql")):
            try:
                _require_success(place, run, name)
            except BackupError as refusal:
                refusals.append(refusal)
        threads[1].join()
        # The one that ran the script knows more than the one whose output was not read any more.
        if problems or refusals:
            raise (problems + list(refusals))[-1]


def without_unknown_setting(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a script of pg_restore without the statement about the setting."""
    head = b""
    for piece in pieces:
        head += piece
        if UNKNOWN_SETTING in head or len(head) >= PREAMBLE_BYTES:
            break
    yield head.replace(UNKNOWN_SETTING, b"", 1)
    yield from pieces
