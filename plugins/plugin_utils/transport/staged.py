# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent reached by files: for connections and become methods whose streams we cannot have.

Each request is a run of its own: the request goes to a private directory on the host, the agent answers into a file
there, and the connection's own put_file and fetch_file move both. The directory belongs to the connecting user; where
the agent runs as somebody else than root, an access control list lets it in, or staging is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.agent import protocol
from ansible_collections.papermerge.backup.plugins.module_utils.agent.manners import Manners
from ansible_collections.papermerge.backup.plugins.module_utils.agent.protocol import Frame
from ansible_collections.papermerge.backup.plugins.module_utils.durable import open_private
from ansible_collections.papermerge.backup.plugins.module_utils.errors import ConnectionLost, LoginError, SettingError
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import (
    GREETING,
    agent_command,
    agent_pack,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Handlers,
    Session,
    handle_until_result,
)


class HostAccess:
    """What staging needs of a connection. ``run(command, become)`` returns (status, stdout, stderr)."""

    def __init__(
        self,
        name: str,
        run: Callable[[str, bool], tuple[int, str, str]],
        put: Callable[[str, str], object],
        fetch: Callable[[str, str], object],
        become_user: str | None,
    ) -> None:
        self.name = name
        self.run = run
        self.put = put
        self.fetch = fetch
        self.become_user = become_user


class StagedSession(Session):
    """Talks to an agent through a directory on the host. ``label`` marks the directories of one instance's runs."""

    separate_requests = True

    def __init__(
        self,
        access: HostAccess,
        label: str,
        interpreter: str | None,
        scratch: Path,
        parent: str = "/var/tmp",
        manners: Manners | None = None,
    ) -> None:
        self._access = access
        self._manners = manners or Manners()
        self._interpreter = interpreter
        self._scratch = scratch
        prefix = f"{parent}/papermerge-backup-{label}"
        self._lock = _try_lock(label)
        # While we hold the label's lock, what carries the label was left by a run that was killed.
        sweep = f"rm -rf -- {shlex.quote(prefix)}.??????; " if self._lock >= 0 else ""
        made = self._run(f"{sweep}umask 077; mktemp -d {shlex.quote(prefix)}.XXXXXX")
        self._directory = made.strip().splitlines()[-1] if made.strip() else ""
        if not self._directory.startswith(prefix + "."):
            raise ConnectionLost(f"{access.name}: cannot make a staging directory in {parent}")
        try:
            self._make_files()
        except BaseException:
            self.close()
            raise

    def _run(self, command: str, become: bool = False) -> str:
        status, output, complaint = self._access.run(command, become)
        if status != 0:
            words = " / ".join((complaint.strip() or output.strip()).splitlines()[-3:])
            raise ConnectionLost(f"{self._access.name}: a staging command failed (status {status}): {words}")
        return output

    def _make_files(self) -> None:
        user = self._access.become_user
        names = " ".join(shlex.quote(self._path(name)) for name in ("in", "out"))
        self._run("umask 077; : > {}".format(" && : > ".join(names.split(" "))))
        if user is None or user == "root":
            return
        try:
            self._run(
                "setfacl -m u:{0}:x {1} && setfacl -m u:{0}:rw {2}".format(
                    shlex.quote(user), shlex.quote(self._directory), names
                )
            )
        except ConnectionLost as error:
            raise SettingError(
                f"staging as {user} needs access control lists on the host so that nobody else can read "
                f"what is staged, and {error.message}; install acl there, become root, or use an ssh or local "
                "connection"
            ) from None

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self._scratch) as local:
            outgoing, incoming = os.path.join(local, "in"), os.path.join(local, "out")
            with open_private(outgoing) as stream:
                stream.write(agent_pack(True, self._manners))
                for frame in call.frames():
                    stream.write(frame if isinstance(frame, bytes) else frame.encoded())
            self._access.put(outgoing, self._path("put"))
            os.unlink(outgoing)
            # What put_file makes has its own mode and owner; the file that the agent may read stays ours. The answer to
            # the call before must not be taken for the answer to this one, should the agent not come to be started.
            self._run(
                ": > {2} && cat {0} > {1} && rm -f {0}".format(
                    *(shlex.quote(self._path(name)) for name in ("put", "in", "out"))
                )
            )
            command = "{{ {}; }} < {} > {}".format(
                agent_command(self._interpreter), shlex.quote(self._path("in")), shlex.quote(self._path("out"))
            )
            status, output, complaint = self._access.run(command, True)
            descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.close(descriptor)
            self._access.fetch(self._path("out"), incoming)
            with open(incoming, "rb") as stream:
                greeting = stream.read(len(GREETING))
                if greeting != GREETING:
                    # With a terminal, as connections like to have one for become, both streams are one.
                    words = [line.strip() for line in (output + complaint).splitlines() if line.strip()]
                    raise LoginError(
                        "{}: the agent could not be started (status {}): {}".format(
                            self._access.name, status, " / ".join(words[-3:])
                        )
                    )
                return handle_until_result(self._frames(stream.read, status), handlers or Handlers())

    def _frames(self, read: Callable[[int], bytes], status: int) -> Iterator[Frame]:
        lost = f"{self._access.name}: the connection was lost: the agent ended (status {status}) before it had answered"
        while True:
            try:
                frame = protocol.read_frame(read)
            except ConnectionLost as error:
                raise ConnectionLost(f"{lost}: {error.message}") from None
            if frame is None:
                raise ConnectionLost(lost)
            yield frame

    def close(self) -> None:
        if self._directory:
            with contextlib.suppress(ConnectionLost):
                self._run(f"rm -rf -- {shlex.quote(self._directory)}")
            self._directory = ""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _try_lock(label: str) -> int:
    """Return a descriptor that holds the label's lock on this controller, or -1 while another run holds it."""
    directory = Path.home() / ".ansible"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            directory / f"papermerge-backup-{label}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor
