# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a restore goes: settings win, then what is installed here, then the places of the source."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Dict, Optional, Tuple

from ..database import sqlite
from ..database.engine import ServerTarget
from ..database.engines import server_target
from ..database.place import DatabasePlace, parse_database_url
from ..errors import SettingError, TargetError
from ..papermerge.instance import Instance, InstanceRequest, find_instance
from .main import Channel

Arguments = Dict[str, Any]

EMPTY_HINT = (
    "; a restore goes onto a target that is empty: move it aside, or set papermerge_backup_media_root and "
    "papermerge_backup_database_url to another place"
)


def instance_on_target(channel: Channel, request: Dict[str, Any]) -> Optional[Instance]:
    """Return the Papermerge that is installed here, or None. It is looked for once a conversation."""
    wanted = InstanceRequest.from_params(request)
    if wanted not in channel.memory:
        channel.memory[wanted] = find_instance(wanted)
    found: Optional[Instance] = channel.memory[wanted]
    return found


def media_root_of(instance: Optional[Instance], arguments: Arguments) -> str:
    """Return where the media belong. ``source_media_root``: where they were; empty where nobody knows."""
    found = arguments["instance"].get("media_root") or (
        instance.media_root if instance else arguments["source_media_root"]
    )
    if not found:
        raise SettingError(
            "found no Papermerge on the target that says where the media belong; set papermerge_backup_media_root"
        )
    return str(found)


def database_place_of(instance: Optional[Instance], arguments: Arguments) -> Tuple[DatabasePlace, str]:
    """Return where the database belongs, and what says so.

    ``source_database``: ``engine``, ``path`` and ``url`` of the source; empty texts where nobody knows them.
    """
    url, source = arguments["instance"].get("database_url"), arguments["source_database"]
    if url:
        found_in = "papermerge_backup_database_url"
        place = parse_database_url(url, found_in)
    elif instance is not None:
        place, found_in = instance.database, instance.database_found_in
    elif source["engine"] == "sqlite" and source["path"]:
        place, found_in = DatabasePlace("sqlite", source["path"]), "the snapshot"
    elif source["url"]:
        found_in = "the snapshot"
        place = parse_database_url(source["url"], found_in)
    else:
        raise SettingError(
            "found no Papermerge on the target that says where the database belongs; set papermerge_backup_database_url"
        )
    if source["engine"] and place.engine != source["engine"]:
        raise TargetError(
            "the snapshot holds a database of {0}, and the target's is of {1} ({2}: {3}); set "
            "papermerge_backup_database_url to one of the same engine".format(
                source["engine"], place.engine, found_in, place.url
            )
        )
    return place, found_in


def server_of(channel: Channel, server: Optional[Dict[str, Any]]) -> Optional[ServerTarget]:
    """Return the server that a restore goes to, None for a database file.

    ``server``: what check_target answered: ``instance``, ``source_database``, ``admin_url`` and ``facts``.
    """
    if server is None:
        return None
    key = json.dumps(server, sort_keys=True)
    if key not in channel.memory:
        place, found_in = database_place_of(instance_on_target(channel, server["instance"]), server)
        admin = None
        if server["admin_url"]:
            admin = parse_database_url(server["admin_url"], "papermerge_backup_database_admin_url")
            if admin.engine != place.engine:
                raise SettingError(
                    "papermerge_backup_database_admin_url is of {0}, the database of {1}".format(
                        admin.engine, place.engine
                    )
                )
            if place.container:
                # Another account of the same server, which is reached inside its container only.
                admin = replace(admin, container=place.container, host=place.host, port=place.port)
        channel.memory[key] = server_target(place, found_in, admin)
    found: ServerTarget = channel.memory[key]
    return found


def require_empty_database(path: str, server: Optional[ServerTarget]) -> None:
    """Raise TargetError unless a database can be put in place without losing anything."""
    if server is not None:
        tables = server.content()
        if tables:
            raise TargetError(
                "database {0} is not empty: it holds {1}{2}".format(server.place.url, ", ".join(tables[:3]), EMPTY_HINT)
            )
    elif path and not sqlite.is_empty_database(path):
        raise TargetError("database {0} is not empty{1}".format(path, EMPTY_HINT))
