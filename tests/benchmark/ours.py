# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of one create or restore, as a process of its own so that its memory can be told apart.

Takes a job as JSON in its argument and prints the result as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import StreamedSession

INSTANCE = "bench"


def main() -> None:
    job = json.loads(sys.argv[1])
    place = Repository(job["repository"]).instance(INSTANCE)
    progress = Progress(INSTANCE, lambda line: print(line, file=sys.stderr))
    with StreamedSession(job["agent"], INSTANCE) as session:
        session.is_here = bool(job["is_here"])
        session.another = lambda: StreamedSession(job["agent"], INSTANCE)
        if job["do"] == "create":
            request = CreateRequest(host=INSTANCE, instance=INSTANCE, collection_version="0.0.0", **job["settings"])
            result = create_snapshot(session, place, request, progress)
            result["timings"] = _timings(place)
        else:
            result = restore_snapshot(session, place, RestoreRequest(**job["settings"]), progress)
    print(json.dumps(result))


def _timings(place: InstanceDirectory) -> dict[str, Any]:
    timings: dict[str, Any] = place.select("latest").require_manifest().fields["timings"]
    return timings


if __name__ == "__main__":
    main()
