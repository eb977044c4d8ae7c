# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge in containers of a real Podman is found with nothing set."""

from __future__ import annotations

from tests.support.containers import MissingEngine, without_engine
from tests.support.podman import in_podman

SCRIPT = """
podman network create dms >/dev/null
podman run --detach --name dms-db --network dms --network-alias db --env POSTGRES_USER=papermerge \
    --env POSTGRES_PASSWORD=secret --volume pg:/var/lib/postgresql/data docker.io/library/postgres:15 sleep 100 >&2
podman run --detach --name dms-web --network dms --volume media:/core_app/media --workdir /core_app \
    --env PAPERMERGE__DATABASE__URL=postgresql://papermerge:secret@db:5432/papermerge \
    docker.io/papermerge/papermerge:3.5.3 sleep 100 >&2
find
podman stop --time 0 dms-web >&2
find
podman stop --time 0 dms-db >&2
find
podman rm --force --time 0 --all >&2
"""


def test_an_instance_in_podman_is_found_running_and_stopped() -> None:
    try:
        running, stopped, without_database = in_podman(SCRIPT)
    except MissingEngine as error:
        without_engine(error)
    found = running["found"]
    assert running["notes"] == []
    assert (found["names"], found["engine"], found["stopped"]) == (["dms-web"], "/usr/bin/podman", False)
    assert (found["version"], found["version_found_in"]) == (
        "3.5.3",
        "tag of image docker.io/papermerge/papermerge:3.5.3",
    )
    assert found["media_root"] == "/var/lib/containers/storage/volumes/media/_data"
    database = found["database"]
    assert (database["container"], database["name"], database["password"]) == ("podman:dms-db", "papermerge", "secret")
    assert stopped["found"] == {**found, "stopped": True}
    assert without_database["error"] == "database"
    assert "podman start dms-db" in without_database["message"]
