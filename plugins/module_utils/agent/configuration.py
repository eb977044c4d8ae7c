# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings files and secret key as an optional part of a snapshot, and back onto a host on request.

The archive is a tar of the files by their absolute paths without the leading slash, and of a file ``environment`` with
the service's variables. Only the manifest's entries decide what is written by a restore.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..durable import open_private, sync_directory, sync_file
from ..errors import DamageError, SettingError, TargetError, describe_os_error
from ..media.extract import Ownership
from ..owners import owner_of
from ..papermerge.instance import Instance

ENVIRONMENT = "environment"
#: A settings file is small; what is larger was named by mistake.
MAX_FILE = 8 << 20
MAX_FILES = 64 << 20
PARTIAL = ".papermerge-backup.partial"

Entry = Dict[str, Any]


class _Sink(io.RawIOBase):
    """Hands what tarfile writes to somebody else, piece by piece."""

    def __init__(self) -> None:
        self._pieces: List[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _read(path: str) -> Tuple[bytes, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SettingError("settings file {0} is not a regular file".format(path))
            content = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingError("settings file cannot be read: {0}".format(describe_os_error(error))) from None
    if len(content) > MAX_FILE:
        raise SettingError("settings file {0} is larger than {1:,} bytes".format(path, MAX_FILE))
    return content, status


def archive_configuration(instance: Instance, entries: List[Entry]) -> Iterator[bytes]:
    """Yield a tar of an instance's settings, and fill ``entries``: name, size, SHA-256, mode, owner of each member."""
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, content: bytes, mode: int, owner: List[Any]) -> bytes:
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
            entries.append(
                {
                    "name": name,
                    "size": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "mode": mode,
                    "owner": owner,
                }
            )
            return sink.taken()

        total = 0
        for path in instance.configuration_files:
            content, status = _read(path)
            total += len(content)
            if total > MAX_FILES:
                raise SettingError("the settings files together are larger than {0:,} bytes".format(MAX_FILES))
            yield add(path, content, stat.S_IMODE(status.st_mode) & 0o777, owner_of(status))
        if instance.service_environment:
            lines = ["{0}={1}\n".format(*pair) for pair in sorted(instance.service_environment.items())]
            variables = "".join(lines).encode("utf-8", "surrogateescape")
            yield add(ENVIRONMENT, variables, 0o600, [0, 0, "root", "root"])
    yield sink.taken()


def require_free(entries: List[Entry]) -> None:
    """Raise TargetError for settings files that exist here with another content."""
    others = [entry["name"] for entry in _files(entries) if _differs(entry)]
    if others:
        raise TargetError(
            "settings files of the snapshot exist on the target with another content: {0}; move them aside, or restore "
            "without papermerge_backup_config".format(", ".join(others))
        )


def _files(entries: List[Entry]) -> List[Entry]:
    for entry in entries:
        name = entry["name"]
        if name != ENVIRONMENT and (not os.path.isabs(name) or os.path.normpath(name) != name or "\0" in name):
            raise DamageError("the manifest names the settings file {0!r}, which is no absolute path".format(name))
    return [entry for entry in entries if entry["name"] != ENVIRONMENT]


def _differs(entry: Entry) -> bool:
    try:
        return bool(hashlib.sha256(_read(entry["name"])[0]).hexdigest() != entry["sha256"])
    except SettingError:
        return os.path.lexists(entry["name"])


def read_configuration(content: Iterator[bytes], entries: List[Entry]) -> Dict[str, bytes]:
    """Return the content of each entry from a tar. Raises DamageError for a member that is not what its entry says."""
    wanted = {entry["name"].lstrip("/"): entry for entry in entries}
    size = sum(int(entry["size"]) for entry in entries)
    if len(wanted) < len(entries) or size > MAX_FILES + MAX_FILE:
        raise DamageError("the manifest names a settings file twice, or more than settings ever take")
    found: Dict[str, bytes] = {}
    limit = size + (len(entries) + 8) * 10240
    packed = io.BytesIO()
    for piece in content:
        packed.write(piece)
        if packed.tell() > limit:
            raise DamageError("the archive of settings is larger than the manifest says")
    packed.seek(0)
    try:
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            for member in archive:
                entry = wanted.get(member.name)
                # A sparse member may say that it is larger than all memory.
                if entry is None or not member.isreg() or member.size != entry["size"]:
                    raise DamageError("the archive of settings holds {0!r} unlike the manifest".format(member.name))
                stream = archive.extractfile(member)
                found[entry["name"]] = stream.read() if stream is not None else b""
    except (tarfile.TarError, EOFError, LookupError, OverflowError, ValueError) as error:
        raise DamageError("the archive of settings is damaged: {0}".format(error)) from None
    for entry in entries:
        data: Optional[bytes] = found.get(entry["name"])
        if data is None or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise DamageError("settings file {0} is not the one that the manifest names".format(entry["name"]))
    return found


def restore_configuration(content: Iterator[bytes], entries: List[Entry]) -> List[str]:
    """Write the settings files of a tar to their places; returns those that were written.

    A file that is there already with the same content stays as it is. Raises DamageError for a member that is not what
    the manifest says, and TargetError for a file that is there with another content, before anything is written.
    """
    found = read_configuration(content, entries)
    require_free(entries)
    ownership = Ownership()
    return [entry["name"] for entry in _files(entries) if _place(entry, found[entry["name"]], ownership)]


def _place(entry: Entry, content: bytes, ownership: Ownership) -> bool:
    path = entry["name"]
    if os.path.lexists(path):
        return False
    partial = path + PARTIAL
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if os.path.lexists(partial):
            # A restore that was killed has left it.
            os.unlink(partial)
        with open_private(partial) as stream:
            stream.write(content)
            user, group = ownership.ids(*entry["owner"])
            if ownership.can_give:
                os.fchown(stream.fileno(), user, group)
            os.fchmod(stream.fileno(), int(entry["mode"]) & 0o777)
            sync_file(stream)
        os.link(partial, path)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        raise TargetError(
            "media and database are restored, but settings file {0} is not: {1}".format(path, describe_os_error(error))
        ) from None
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)
    return True
