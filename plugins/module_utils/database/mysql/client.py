# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client programs of MariaDB and MySQL: which of the two they are, how they learn where to connect, what they say.

Both read ``--defaults-file`` (https://mariadb.com/kb/en/configuring-mariadb-with-option-files/,
https://dev.mysql.com/doc/refman/8.4/en/option-files.html). Theirs is a file without a name that only their process has.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from ...errors import BackupError, DatabaseError, SettingError, SpaceError, ToolError
from ...programs import Program
from ..client import Client
from ..place import DatabasePlace

MARIADB = "MariaDB"
MYSQL = "MySQL"
CONNECT_SECONDS = 15
#: MariaDB gives its programs names of their own; the older names are links to them, or another vendor's.
DUMP_PROGRAMS = ("mariadb-dump", "mysqldump")
SHELL_PROGRAMS = ("mariadb", "mysql")
PACKAGE = "mariadb-client or mysql-client"
#: The longest row that a client can send or receive; a server's own limit is smaller or equal.
MAX_PACKET = 1 << 30
#: The server gives up on a client that does not read for so many seconds: the other end of the line may be slow.
NET_SECONDS = 3600

#: Options of a URL that name files or ciphers, and what the programs call them.
_TLS_FILES: Dict[str, str] = {
    "ssl_ca": "ssl-ca",
    "ssl_capath": "ssl-capath",
    "ssl_cert": "ssl-cert",
    "ssl_key": "ssl-key",
    "ssl_cipher": "ssl-cipher",
    "sslrootcert": "ssl-ca",
    "sslcert": "ssl-cert",
    "sslkey": "ssl-key",
}
#: What may stand for ssl_mode in a URL, and MySQL's word for it.
_TLS_MODES: Dict[str, str] = {
    "disabled": "DISABLED",
    "disable": "DISABLED",
    "false": "DISABLED",
    "0": "DISABLED",
    "preferred": "PREFERRED",
    "prefer": "PREFERRED",
    "allow": "PREFERRED",
    "required": "REQUIRED",
    "require": "REQUIRED",
    "true": "REQUIRED",
    "1": "REQUIRED",
    "verify_ca": "VERIFY_CA",
    "verify_identity": "VERIFY_IDENTITY",
    "verify_full": "VERIFY_IDENTITY",
}
#: MariaDB's programs know no modes. Since 11.4 they check certificates unless told not to; older ones do not know how
#: to be told in that word, hence "loose".
_MARIADB_TLS: Dict[str, Tuple[str, ...]] = {
    "DISABLED": ("skip-ssl",),
    "PREFERRED": ("loose-disable-ssl-verify-server-cert",),
    "REQUIRED": ("ssl", "disable-ssl-verify-server-cert"),
    "VERIFY_CA": ("ssl", "ssl-verify-server-cert"),
    "VERIFY_IDENTITY": ("ssl", "ssl-verify-server-cert"),
}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b"}


@dataclass(frozen=True)
class ClientProgram:
    """A client program: its path (in a container its name), flavour, version such as (10, 11), and its own words."""

    path: str
    flavour: str
    version: Tuple[int, ...]
    words: str


def option_value(text: str) -> str:
    """Return a value as option files have it. Quotes keep spaces and number signs."""
    return '"{0}"'.format("".join(_ESCAPES.get(letter, letter) for letter in text))


def parse_client_version(path: str, words: str) -> ClientProgram:
    """Read what ``--version`` says. Raises ToolError."""
    flavour = MARIADB if "mariadb" in words.lower() else MYSQL
    found = re.search(r"(?:Distrib|from) (\d+)\.(\d+)", words) or re.search(r"Ver (\d+)\.(\d+)", words)
    if not found:
        raise ToolError("{0} --version tells no version: {1!r}".format(path, words))
    return ClientProgram(path, flavour, tuple(int(number) for number in found.groups()), words)


class MysqlClient:
    """The client programs for a place."""

    def __init__(self, place: DatabasePlace) -> None:
        self._place = place
        # A file cannot be handed into a container, an environment can.
        own = {"MYSQL_PWD": place.password} if place.container and place.password else {}
        if not place.container:
            # What mysql_config_editor keeps would win over our file.
            own["MYSQL_TEST_LOGIN_FILE"] = os.devnull
        self._client = Client(place, own)

    def dump_program(self, flavour: str = "") -> ClientProgram:
        """Return the program that dumps, the server's own flavour where there are both. Raises ToolError."""
        return self._program(DUMP_PROGRAMS[::-1] if flavour == MYSQL else DUMP_PROGRAMS)

    def shell_program(self) -> ClientProgram:
        """Return the program that runs statements. Raises ToolError."""
        return self._program(SHELL_PROGRAMS)

    def _program(self, names: Tuple[str, ...]) -> ClientProgram:
        complaint = ""
        for name in names:
            path = self._client.find(name)
            if path is None:
                continue
            with self._client.start([path, "--version"]) as run:
                words = b"".join(run.output()).decode("utf-8", "replace").strip()
                status = run.finish()
            if status == 0:
                return parse_client_version(path, words)
            complaint = run.complaint or "status {0}".format(status)
            if _is_container_problem(complaint):
                raise explain(self._place, "reached", complaint)
        missing = " nor ".join(names)
        if self._place.container:
            raise ToolError(
                "the container {0} has neither {1} ({2}); name the server itself in "
                "papermerge_backup_database_url".format(self._place.container, missing, complaint)
            )
        raise ToolError("the host has neither {0}; install {1}".format(missing, PACKAGE))

    @contextlib.contextmanager
    def start(self, program: ClientProgram, arguments: List[str]) -> Iterator[Program]:
        """Start a program that connects."""
        options = connection_options(self._place, program)
        if self._place.container:
            words = ["--{0}={1}".format(name, value) if value else "--" + name for name, value in options]
            with self._client.start([program.path] + words + arguments) as run:
                yield run
            return
        if self._place.password:
            options.append(("password", self._place.password))
        with option_file(options, bool(self._place.password)) as descriptor:
            path = "--defaults-file=/dev/fd/{0}".format(descriptor)
            with self._client.start([program.path, path] + arguments, (descriptor,)) as run:
                yield run


def connection_options(place: DatabasePlace, program: ClientProgram) -> List[Tuple[str, str]]:
    """Return what tells a program where to connect, without the password. Raises SettingError for an unknown ssl_mode.

    An option without a value has an empty one.
    """
    found = [("connect-timeout", str(CONNECT_SECONDS))] if program.path.rpartition("/")[2] in SHELL_PROGRAMS else []
    if place.host.startswith("/"):
        found.append(("socket", place.host))
    elif place.host:
        found.append(("host", place.host))
    if place.port:
        found.append(("port", str(place.port)))
    if place.user:
        found.append(("user", place.user))
    for name, value in place.options:
        plain = name.lower().replace("-", "_")
        if plain in _TLS_FILES:
            found.append((_TLS_FILES[plain], value))
        elif _is_tls_mode(name):
            found += _tls_mode(place, program, value)
    return found


def requires_tls(place: DatabasePlace) -> bool:
    """Whether the URL wants TLS. MariaDB's older programs go on without, whatever they were told."""
    modes = [_TLS_MODES.get(value.lower().replace("-", "_")) for name, value in place.options if _is_tls_mode(name)]
    return any(mode not in (None, "DISABLED", "PREFERRED") for mode in modes)


def _is_tls_mode(name: str) -> bool:
    return name.lower().replace("-", "_") in ("ssl_mode", "sslmode")


def _tls_mode(place: DatabasePlace, program: ClientProgram, value: str) -> List[Tuple[str, str]]:
    mode = _TLS_MODES.get(value.lower().replace("-", "_"))
    if mode is None:
        raise SettingError(
            "the database URL {0} has the ssl_mode {1!r}; known are {2}".format(
                place.url, value, ", ".join(sorted(set(_TLS_MODES.values())))
            )
        )
    if program.flavour == MYSQL:
        return [("ssl-mode", mode)]
    return [(name, "") for name in _MARIADB_TLS[mode]]


@contextlib.contextmanager
def option_file(options: List[Tuple[str, str]], secret: bool) -> Iterator[int]:
    """Make an option file without a name. Yields its descriptor, for ``/dev/fd/N`` in a process that inherits it."""
    lines = ["[client]"]
    lines += ["{0}={1}".format(name, option_value(value)) if value else name for name, value in options]
    content = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
    make: Optional[Callable[[str], int]] = getattr(os, "memfd_create", None)
    if make is not None:
        descriptor = make("options")
    else:
        # A Python built for an old C library: a file that lost its name before it got its content.
        with tempfile.TemporaryFile() as stream:
            descriptor = os.dup(stream.fileno())
    try:
        # The programs ignore a file that everybody may write. A program that gives up root's rights opens it as the
        # other user; without a password nothing in it is secret.
        os.fchmod(descriptor, 0o600 if secret else 0o644)
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_container_problem(words: str) -> bool:
    return re.search(_NO_CONTAINER, words, re.IGNORECASE) is not None


_NO_CONTAINER = r"No such container|no container with name|container \S+ is not running|can only create exec sessions"

#: Error numbers of server and clients (https://mariadb.com/kb/en/mariadb-error-codes/), or words where there are none;
#: the error that it is, and what to do about it. The first that fits counts.
EXPLANATIONS: Tuple[Tuple[str, Callable[..., BackupError], str], ...] = (
    (_NO_CONTAINER, DatabaseError, "the container of the server does not run; start it"),
    (r"#1045|#1698|#1862|#1820", DatabaseError, "the server refuses the login; correct the URL's user and password"),
    (r"#1049", DatabaseError, "the server has no such database; correct the URL's name"),
    (
        r"#1044",
        DatabaseError,
        "there is no such database, or the account has no rights on it; correct the URL, or GRANT ALL PRIVILEGES",
    ),
    (
        r"insufficient privileges to SHOW CREATE",
        DatabaseError,
        "it may not read a routine of somebody else; GRANT SELECT ON mysql.proc (MySQL: GRANT SHOW_ROUTINE ON *.*)",
    ),
    (
        r"#1142|#1143|#1227|#1370|#1410|#1419|#1697",
        DatabaseError,
        "the account has not enough rights; GRANT ALL PRIVILEGES on the database",
    ),
    (r"#1114|#1021|No space left on device|errno: 28", SpaceError, "the server has no room left; free some"),
    (r"#1153|#2020", DatabaseError, "a row is larger than the server takes; raise its max_allowed_packet"),
    (r"#1273|#1115", DatabaseError, "the server does not know a collation of this database; use a newer server"),
    (r"#1040|#1203|#1226", DatabaseError, "the server has no connection left; try again or raise its limits"),
    (
        r"#2059|#1251|#2058|#2061",
        ToolError,
        "the client cannot log in as the server wants; install its own client",
    ),
    (r"#2026|TLS/SSL error|SSL connection error", DatabaseError, "TLS fails; set ssl_mode and ssl_ca in the URL"),
    (
        r"#2002|#2003|#2004|#2005|Can't connect to|Unknown (?:MySQL |MariaDB )?server host",
        DatabaseError,
        "the server cannot be reached; is it running, and are host and port right?",
    ),
    (
        r"#2013|#2006|#1053|#1927|#1317|#1152|#1184|#1158|#1159|#1160|#1161|#1080|#4031|Lost connection|gone away",
        DatabaseError,
        "the server ended the connection; see its log and run again",
    ),
)
#: How the programs write a number: "ERROR 1045 (28000)", "Got error: 1045:", "Error 2013:", "(2006)".
_NUMBER = re.compile(r"(?:error:? |\()(\d{4})\b", re.IGNORECASE)


#: How a line begins that is the program's own; the warning is of MYSQL_PWD, or of an option that is none.
_SAID = re.compile(r"ERROR \d+ |ERROR: |(?:\S*/)?(?:mysql|mariadb)(?:-?dump)?(?:\.bin)?: (?!\[?Warning\]?)")


def explain(place: DatabasePlace, what: str, words: str) -> BackupError:
    """Return the error for what a client program said, without any password of ours in it."""
    lines = [line.strip() for line in words.strip().splitlines() if line.strip()]
    # An error comes after the statement that it is about, which may hold anybody's documents.
    said = [line for line in lines if _SAID.match(line)] or lines
    text = " / ".join(said[-4:]) or "no reason given"
    for secret in place.secrets:
        text = text.replace(secret, "********")
    number = _NUMBER.search(text)
    known = "#{0} {1}".format(number.group(1), text) if number else text
    for pattern, kind, advice in EXPLANATIONS:
        if re.search(pattern, known, re.IGNORECASE):
            return kind("database {0} cannot be {1}: {2} ({3})".format(place.url, what, advice, text))
    return DatabaseError("database {0} cannot be {1}: {2}".format(place.url, what, text))
