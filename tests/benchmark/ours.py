# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of one job, as a process of its own so that its memory can be told apart.

Takes a job as JSON in its argument and prints the result as JSON, with the bytes that passed between controller and
agents, by operation.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import make_private_directory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, ConnectionLost
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.extract import ExtractRequest, extract, to_controller
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.rate import RateLimit
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import StreamedSession
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import Verification, scratch_directory

INSTANCE = "bench"


class Traffic:
    """What has passed over all sessions, by operation; it can be cut after so many bytes."""

    def __init__(self, cut: int | None) -> None:
        self.by_operation: Counter[str] = Counter()
        self._cut = cut
        self._total = 0
        self._counting = threading.Lock()

    def add(self, operation: str, count: int) -> None:
        with self._counting:
            self.by_operation[operation] += count
            self._total += count
            if self._cut is not None and self._total > self._cut:
                raise ConnectionLost("cut by the bench")


class Tap(RateLimit):
    """Counts one session's bytes under the name of the operation that is at work, and holds nothing up."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(1 << 40)
        self.operation = "start"
        self._traffic = traffic

    def passed(self, count: int) -> None:
        self._traffic.add(self.operation, count)


class CountedSession(StreamedSession):
    def __init__(self, argv: list[str], traffic: Traffic) -> None:
        self._tap = Tap(traffic)
        super().__init__(argv, INSTANCE, limit=self._tap)
        self.another = lambda: CountedSession(argv, traffic)

    def call(self, call: Call, handlers: Handlers | None = None) -> dict[str, Any]:
        self._tap.operation = call.operation
        return super().call(call, handlers)


def main() -> None:
    job = json.loads(sys.argv[1])
    place = Repository(job["repository"]).instance(INSTANCE)
    traffic = Traffic(job.get("cut"))
    result = JOBS[job["do"]](job, place, traffic)
    result["moved"] = dict(traffic.by_operation)
    print(json.dumps(result))


def _progress() -> Progress:
    return Progress(INSTANCE, lambda line: print(line, file=sys.stderr))


def _create(job: dict[str, Any], place: InstanceDirectory, traffic: Traffic) -> dict[str, Any]:
    request = CreateRequest(host=INSTANCE, instance=INSTANCE, collection_version="0.0.0", **job["settings"])
    try:
        with closing(CountedSession(job["agent"], traffic)) as session:
            session.is_here = bool(job["is_here"])
            result = create_snapshot(session, place, request, _progress())
    except BackupError as error:
        if job.get("cut") is None:
            raise
        return {"cut": error.message}
    if job.get("cut") is not None:
        raise SystemExit("the create ended before it was cut")
    result["timings"] = place.select("latest").require_manifest().fields["timings"]
    return result


def _restore(job: dict[str, Any], place: InstanceDirectory, traffic: Traffic) -> dict[str, Any]:
    with closing(CountedSession(job["agent"], traffic)) as session:
        session.is_here = bool(job["is_here"])
        return restore_snapshot(session, place, RestoreRequest(**job["settings"]), _progress())


def _verify(job: dict[str, Any], place: InstanceDirectory, traffic: Traffic) -> dict[str, Any]:
    del job, traffic
    with scratch_directory() as scratch:
        return Verification(place, place.select("latest"), _progress(), scratch).verify("full")


def _extract(job: dict[str, Any], place: InstanceDirectory, traffic: Traffic) -> dict[str, Any]:
    del traffic
    number = re.search(r"document_(\d+)/", job["path"])
    assert number is not None
    make_private_directory(job["dest"])
    request = ExtractRequest(document=number[1], dest=job["dest"])
    return extract(place, request, _progress(), to_controller(Path(job["dest"])))


JOBS = {"create": _create, "restore": _restore, "verify": _verify, "extract": _extract}


if __name__ == "__main__":
    main()
