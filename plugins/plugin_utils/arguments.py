# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The argument specifications of the modules that run as actions: one table, from which roles' defaults follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Spec = dict[str, dict[str, Any]]

REPOSITORY: Spec = {
    "repository": {"type": "path", "default": "~/papermerge-backups"},
}
#: What contacts no host may look at several repositories.
REPOSITORIES: Spec = {
    "repository": {"type": "list", "elements": "path", "default": ["~/papermerge-backups"]},
}
INSTANCE: Spec = {
    "instance": {"type": "str"},
}
DISCOVERY: Spec = {
    "project_dir": {"type": "str"},
    "media_root": {"type": "str"},
    "database_url": {"type": "str", "no_log": True},
    "app_version": {"type": "str"},
    "container": {"type": "str"},
}
ADMIN: Spec = {
    "database_admin_url": {"type": "str", "no_log": True},
}
TRANSFER: Spec = {
    "transfer": {"type": "str", "choices": ["auto", "streamed", "staged"], "default": "auto"},
    "nice": {"type": "int", "default": 0},
    "io_class": {"type": "str", "choices": ["none", "best-effort", "idle"], "default": "none"},
    "io_level": {"type": "int", "default": 7},
    "rate_limit": {"type": "bytes"},
}
MEDIA: Spec = {
    "media_allowed_roots": {"type": "list", "elements": "str", "default": []},
    "derived": {"type": "bool", "default": True},
}
LOCATION: Spec = {
    "location": {"type": "str", "choices": ["controller", "host"], "default": "controller"},
}
#: No defaults: a policy is a decision of the user's.
RETENTION: Spec = {
    **{f"keep_{kind}": {"type": "int"} for kind in ("last", "hourly", "daily", "weekly", "monthly", "yearly")},
    "keep_within": {"type": "str"},
    **{f"keep_within_{kind}": {"type": "str"} for kind in ("hourly", "daily", "weekly", "monthly", "yearly")},
}

ARGUMENTS: dict[str, Spec] = {
    "snapshot_create": {
        **REPOSITORY,
        **INSTANCE,
        **DISCOVERY,
        **TRANSFER,
        **MEDIA,
        "copy_dir": {"type": "str"},
        "accept_missing": {"type": "bool", "default": False},
        "media_protected_elsewhere": {"type": "bool", "default": False},
        "config": {"type": "bool", "default": False},
        "accept_ephemeral": {"type": "bool", "default": False},
    },
    "snapshot_restore": {
        **REPOSITORY,
        **INSTANCE,
        **DISCOVERY,
        **TRANSFER,
        **ADMIN,
        "source": {"type": "str"},
        "snapshot": {"type": "str", "default": "latest"},
        "replace": {"type": "bool", "default": False},
        "config": {"type": "bool", "default": False},
    },
    "snapshot_info": {
        **REPOSITORIES,
        **INSTANCE,
        "excluded_instances": {"type": "list", "elements": "str", "default": []},
    },
    "snapshot_verify": {
        **REPOSITORIES,
        **INSTANCE,
        "excluded_instances": {"type": "list", "elements": "str", "default": []},
        "snapshot": {"type": "str", "default": "latest"},
        "level": {"type": "str", "choices": ["quick", "full", "deep"], "default": "full"},
    },
    "snapshot_pin": {
        **REPOSITORY,
        **INSTANCE,
        "snapshot": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "note": {"type": "str", "default": ""},
    },
    "snapshot_prune": {
        **REPOSITORIES,
        **INSTANCE,
        "excluded_instances": {"type": "list", "elements": "str", "default": []},
        **RETENTION,
        "verified_within": {"type": "str", "default": "30d"},
        "part_grace": {"type": "str", "default": "24h"},
        "shrink_threshold": {"type": "int", "default": 20},
        "accept_shrink": {"type": "list", "elements": "str", "default": []},
    },
    "snapshot_extract": {
        **REPOSITORY,
        **INSTANCE,
        **TRANSFER,
        **LOCATION,
        "snapshot": {"type": "str", "default": "latest"},
        "document": {"type": "str"},
        "user": {"type": "str"},
        "pattern": {"type": "str"},
        "dest": {"type": "str", "required": True},
    },
    "snapshot_compare": {
        **REPOSITORY,
        **INSTANCE,
        "snapshot": {"type": "str", "default": "latest"},
        "base": {"type": "str"},
        "base_instance": {"type": "str"},
        "dest": {"type": "str"},
    },
    "drill": {
        **REPOSITORY,
        **INSTANCE,
        "snapshot": {"type": "str", "default": "latest"},
        "days": {"type": "int", "default": 0},
        "sample": {"type": "int", "default": 20},
        "names": {"type": "bool", "default": False},
        "command": {"type": "str"},
        "rto": {"type": "str"},
        "rpo": {"type": "str"},
        "evidence": {"type": "path", "default": "~/papermerge-drills"},
        "scratch_dir": {"type": "path", "default": ""},
    },
    "database_dump": {
        **DISCOVERY,
        **TRANSFER,
        **LOCATION,
        "dest": {"type": "str", "required": True},
        "copy_dir": {"type": "str"},
    },
    "database_restore": {
        **DISCOVERY,
        **TRANSFER,
        **LOCATION,
        **ADMIN,
        "src": {"type": "str", "required": True},
        "sha256": {"type": "str"},
    },
    "media_archive": {
        **DISCOVERY,
        **TRANSFER,
        **LOCATION,
        **MEDIA,
        "dest": {"type": "str", "required": True},
    },
    "media_restore": {
        **DISCOVERY,
        **TRANSFER,
        **LOCATION,
        "src": {"type": "str", "required": True},
    },
    "summary": {
        "title": {"type": "str", "required": True},
        "columns": {"type": "list", "elements": "str", "required": True},
        "results": {"type": "list", "elements": "dict", "required": True},
        "hosts": {"type": "list", "elements": "str", "required": True},
    },
}


@dataclass(kw_only=True)
class Discovery:
    """What the user has set of an instance by hand; None is discovered on the host."""

    project_dir: str | None = None
    media_root: str | None = None
    database_url: str | None = None
    app_version: str | None = None
    container: str | None = None

    def as_request(self) -> dict[str, Any]:
        """Return the agent's ``instance`` argument."""
        return {name: getattr(self, name) for name in DISCOVERY}
