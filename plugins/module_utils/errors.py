# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's own errors: one base class, one subclass for each thing that a user can do about it.

A message says what was found, where, and what to do. Errors cross the connection between agent and controller as
``{"error": kind, "msg": message, ...details}``; :func:`error_from_dict` builds the same class on the other side.
"""

from __future__ import annotations

from typing import Any, Dict, Type


class BackupError(Exception):
    """Base class: something failed for a reason that the message names."""

    kind = "failed"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def as_result(self) -> Dict[str, Any]:
        """Return ``{"msg", "error", ...details}`` as a module's failure result."""
        return {**self.details, "msg": self.message, "error": self.kind}


class SettingError(BackupError):
    """A setting is wrong, missing or ambiguous: correct it in the inventory."""

    kind = "setting"


class MediaError(BackupError):
    """The media directory cannot be read as it is: repair it or allow what was found."""

    kind = "media"


class DatabaseError(BackupError):
    """The database cannot be copied or restored: repair it or its access."""

    kind = "database"


class UnsupportedError(BackupError):
    """What was found is outside what this version of the collection can do."""

    kind = "unsupported"


class RepositoryError(BackupError):
    """The repository cannot be used: wrong place, no permission, unknown format, no such snapshot."""

    kind = "repository"


class BusyError(BackupError):
    """Another run works on the same instance: wait for it."""

    kind = "busy"


class SpaceError(BackupError):
    """Not enough room: free some and run again."""

    kind = "space"


class DamageError(BackupError):
    """A stored snapshot is not what was committed: use another one, look after the storage."""

    kind = "damage"


class TargetError(BackupError):
    """The target of a restore is not empty or does not fit the snapshot."""

    kind = "target"


class LossError(BackupError):
    """Originals that must exist are missing or unreadable: look for them before older snapshots are pruned."""

    kind = "loss"


class LoginError(BackupError):
    """The host was reached, but the agent could not be started: check become, its password, and Python."""

    kind = "login"


class ConnectionLost(BackupError):
    """The host could not be reached or went silent: check the connection and run again."""

    kind = "connection"


class ToolError(BackupError):
    """A program that does a part of the work is missing or failed."""

    kind = "tool"


KINDS: Dict[str, Type[BackupError]] = {
    error.kind: error
    for error in (
        BackupError,
        SettingError,
        MediaError,
        DatabaseError,
        UnsupportedError,
        RepositoryError,
        BusyError,
        SpaceError,
        DamageError,
        TargetError,
        LossError,
        LoginError,
        ConnectionLost,
        ToolError,
    )
}


def error_from_dict(result: Dict[str, Any]) -> BackupError:
    """Build the error that :meth:`BackupError.as_result` described; an unknown kind becomes the base class."""
    details = {key: value for key, value in result.items() if key not in ("msg", "error")}
    return KINDS.get(str(result.get("error")), BackupError)(str(result.get("msg", "no message")), **details)


def describe_os_error(error: OSError) -> str:
    """Return the system's words for an error and the path it was about, without Python's decoration."""
    reason = error.strerror or str(error)
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "backslashreplace")
    return "{0}: {1}".format(name, reason) if name else reason
