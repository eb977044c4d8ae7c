# SPDX-License-Identifier: GPL-3.0-or-later
"""What `inspect` says of containers, read: the texts are a real engine's, shortened, and changed as a test says."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace, parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DatabaseError,
    MediaError,
    SettingError,
    ToolError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.container import (
    Container,
    Mount,
    on_the_host,
    parse_container,
    parse_image,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.container_database import find_server, reach
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.container_engine import Engine
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.container_files import (
    configuration_files,
    media_on_the_host,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.container_version import (
    constant_of,
    find_version_of,
    project_version,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.containers import (
    ContainerInstance,
    ContainerRequest,
    find_container_instance,
)
from tests.support.containers import MissingEngine, without_engine

TEXT = (Path(__file__).parent / "texts/docker-inspect.json").read_text(encoding="utf-8")
"""Docker 20.10 on web, worker and db of Papermerge 3.5.3, started as compose does it."""
WORKER, WEB, DB = "dms-worker-1", "dms-web-1", "dms-db-1"
URL = "PAPERMERGE__DATABASE__URL"

Change = Callable[[dict[str, dict[str, Any]]], object]


def documents(*changes: Change) -> list[dict[str, Any]]:
    """The text's containers after some changes, which get them by name."""
    found: list[dict[str, Any]] = json.loads(TEXT)
    by_name = {document["Name"].lstrip("/"): document for document in found}
    for change in changes:
        change(by_name)
    return list(by_name.values())


def fleet(*changes: Change) -> dict[str, Container]:
    containers = [parse_container(document, "docker") for document in documents(*changes)]
    return {container.name: container for container in containers}


def environment(container: str, name: str, value: str | None) -> Change:
    def change(containers: dict[str, dict[str, Any]]) -> None:
        lines = containers[container]["Config"]["Env"]
        lines[:] = [line for line in lines if not line.startswith(name + "=")]
        if value is not None:
            lines.append(f"{name}={value}")

    return change


def setting(container: str, path: str, value: Any) -> Change:
    """Set what a path such as HostConfig.NetworkMode leads to."""

    def change(containers: dict[str, dict[str, Any]]) -> None:
        *parents, last = path.split(".")
        place = containers[container]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value

    return change


def added(like: str, name: str) -> Change:
    """Add a container that is like another one but for its name and id."""

    def change(containers: dict[str, dict[str, Any]]) -> None:
        one = copy.deepcopy(containers[like])
        one["Name"], one["Id"] = "/" + name, f"{len(containers):064x}"
        containers[name] = one

    return change


def located(host: str, *changes: Change, port: int = 0) -> tuple[str | None, str, int]:
    """Where the web container's database is when its URL names a host: container, host, port."""
    containers = fleet(*changes)
    place = DatabasePlace("postgresql", name="papermerge", host=host, port=port)
    server = find_server(containers[WEB], place, list(containers.values()), lambda address: address == "192.168.7.7")
    return (server.container.name if server.container else None), server.host, server.port


class InspectedEngine(Engine):
    """An engine that has said what a text says, with volumes and with files that every container has."""

    def __init__(
        self,
        *changes: Change,
        volumes: Mapping[str, dict[str, Any]] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        super().__init__("/usr/bin/docker")
        self._documents = documents(*changes)
        self._volumes = volumes or {}
        self._files = files or {}

    def containers(self) -> list[dict[str, Any]]:
        return self._documents

    def volume(self, name: str) -> dict[str, Any] | None:
        return self._volumes.get(name)

    def member(self, *_arguments: Any) -> None:
        return None

    def file(self, container: str, path: str) -> bytes | None:
        return self._files.get(path)


class Settings:
    """The two settings of Papermerge 3.x."""

    def __init__(
        self, variables: Mapping[str, str], version: str, directory: str, found_in: str, *_more: object
    ) -> None:
        self._variables, self._directory, self._found_in = variables, directory, found_in

    def media(self) -> tuple[str, str]:
        return self._variables.get("PAPERMERGE__MAIN__MEDIA_ROOT", self._directory + "/media"), self._found_in

    def database(self) -> tuple[DatabasePlace, str]:
        if URL not in self._variables:
            raise SettingError(f"no {URL} in {self._found_in}")
        return parse_database_url(self._variables[URL], self._found_in), self._found_in


def find(engine: Engine, **request: Any) -> ContainerInstance:
    found, notes = find_container_instance(Settings, ContainerRequest(**{"media_root": "/m", **request}), [engine])
    assert not notes
    assert found is not None
    return found


# Images and versions


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("papermerge/papermerge:3.5.3", "papermerge/papermerge", "3.5.3"),
        ("papermerge/papermerge", "papermerge/papermerge", ""),
        ("localhost:5000/papermerge", "localhost:5000/papermerge", ""),
        ("localhost:5000/papermerge/papermerge:3.2", "localhost:5000/papermerge/papermerge", "3.2"),
        ("papermerge/papermerge:3.4@sha256:" + "ab" * 32, "papermerge/papermerge", "3.4"),
        ("papermerge/papermerge@sha256:" + "ab" * 32, "papermerge/papermerge", ""),
        ("sha256:" + "ab" * 32, "", ""),
        ("f3855e1f17f5", "", ""),
    ],
)
def test_an_images_name_has_its_parts(text: str, repository: str, tag: str) -> None:
    image = parse_image(text)
    assert (image.repository, image.tag) == (repository, tag)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("papermerge/papermerge:3.5.3", "3.5.3"),
        ("papermerge/papermerge:3.2", "3.2"),
        ("papermerge/papermerge:3.6.0a16", "3.6.0a16"),
        ("docker.io/papermerge/papermerge:3.5.3@sha256:" + "ab" * 32, "3.5.3"),
        ("mirror.example:5000/papermerge/papermerge:2.1.9", "2.1.9"),
        ("eugenci/papermerge:v1.5.5", "1.5.5"),
        ("lscr.io/linuxserver/papermerge:version-v1.5.5", "1.5.5"),
        ("lscr.io/linuxserver/papermerge:v1.5.5-ls22", "1.5.5"),
        ("papermerge/papermerge:latest", None),
        ("papermerge/papermerge:3", None),
        ("papermerge/papermerge:2026.11.22", None),
        ("papermerge/papermerge", None),
        ("localhost:5000/papermerge", None),
        ("papermerge/ocrworker:0.3.1", None),
        ("our/dms:3.5.3", None),
    ],
)
def test_only_a_tag_of_papermerges_own_images_is_a_version(image: str, version: str | None) -> None:
    container = fleet(setting(WEB, "Config.Image", image))[WEB]
    found = find_version_of(InspectedEngine(), container)
    assert (found[0] if found else None) == version
    assert found is None or image.partition("@")[0] in found[1]


def test_the_tag_of_somebodys_own_image_counts_only_where_no_file_tells() -> None:
    container = fleet(setting(WEB, "Config.Image", "registry.example/papermerge:1.0"))[WEB]
    project = {"/core_app/pyproject.toml": b'[project]\nname = "papermerge"\nversion = "3.5.2"\n'}
    told = find_version_of(InspectedEngine(files=project), container)
    assert told == ("3.5.2", "/core_app/pyproject.toml in container dms-web-1")
    assert find_version_of(InspectedEngine(), container) == ("1.0", "tag of image registry.example/papermerge:1.0")


def test_the_versions_of_other_projects_and_sections_are_not_papermerges() -> None:
    poetry = '[tool.poetry]\nname = "papermerge-core"\nversion = "3.2"\n[tool.poetry.dependencies]\nversion = "1.0"\n'
    assert project_version(poetry) == "3.2"
    assert project_version('[tool.x]\nversion = "1.0"\n[project]\nversion = "3.5.3"\nname = "papermerge"\n') == "3.5.3"
    assert project_version('[project]\nname = "auth-server"\nversion = "1.1.5"\n') is None
    assert constant_of("ALPHA = 'a'\nVERSION = (2, 0, 2, ALPHA, 0)\n", "VERSION") == "2.0.2"
    assert constant_of("from importlib.metadata import version\n__version__ = version('x')\n", "__version__") is None
    assert constant_of('__version__ = "2.1.9"\n', "__version__") == "2.1.9"


# What is mounted where


def test_a_path_belongs_to_the_innermost_mount_that_holds_it() -> None:
    mounts = [
        {"Type": "bind", "Source": "/srv/data", "Destination": "/data"},
        {"Type": "volume", "Name": "v", "Source": "/var/lib/docker/volumes/v/_data", "Destination": "/data/pm/"},
        {"Type": "bind", "Source": "/srv/else", "Destination": "/data/pm2"},
    ]
    web = fleet(setting(WEB, "Mounts", mounts))[WEB]

    def outside(path: str) -> str | None:
        mount = web.mount_of(path)
        return on_the_host(mount, path) if mount else None

    assert outside("/data/pm/media") == "/var/lib/docker/volumes/v/_data/media"
    assert outside("/data/pm") == "/var/lib/docker/volumes/v/_data"
    assert outside("/data/pm3") == "/srv/data/pm3"
    assert outside("/data/pm2/x") == "/srv/else/x"
    assert outside("/database") is None
    assert [mount.destination for mount in web.mounts_below("/data")] == ["/data/pm", "/data/pm2"]


def test_a_part_of_a_volume_is_found_in_that_part() -> None:
    wish = [{"Type": "volume", "Target": "/core_app/media", "VolumeOptions": {"Subpath": "pm/originals"}}]
    web = fleet(setting(WEB, "HostConfig.Mounts", wish))[WEB]
    assert web.mounts == (
        Mount(
            "volume",
            "/var/lib/docker/volumes/dms_media/_data/pm/originals",
            "/core_app/media",
            "dms_media",
            "local",
            "/pm/originals",
        ),
    )


def test_a_network_volume_is_there_only_while_it_is_mounted(tmp_path: Path) -> None:
    options = {"type": "nfs", "o": "addr=10.0.0.5,rw", "device": ":/export/media"}
    volume = {"Name": "dms_media", "Driver": "local", "Mountpoint": str(tmp_path), "Options": options}
    web = fleet()[WEB]
    with pytest.raises(MediaError, match=r"volume dms_media \(nfs\).* docker start dms-web-1"):
        media_on_the_host(InspectedEngine(volumes={"dms_media": volume}), web, "/core_app/media", "here")
    options.update(type="none", o="bind", device=str(tmp_path / "real"))
    (tmp_path / "real").mkdir()
    place, _where = media_on_the_host(InspectedEngine(volumes={"dms_media": volume}), web, "/core_app/media", "here")
    assert place == str(tmp_path / "real")


def test_a_mount_that_this_host_does_not_have_is_named() -> None:
    with pytest.raises(MediaError, match=r"/var/lib/docker/volumes/dms_media/_data is no directory of this host"):
        media_on_the_host(InspectedEngine(), fleet()[WEB], "/core_app/media", "here")


# Which server a database URL means


@pytest.mark.parametrize("name", ["db", "DB", "dms-db-1", "db.dms_default", "db.", "0c5759fe62e5", "172.18.0.4"])
def test_a_container_is_found_by_every_name_that_the_network_gives_it(name: str) -> None:
    assert located(name) == (DB, "", 5432)


def test_a_name_of_another_network_is_not_found() -> None:
    elsewhere = {"other": {"Aliases": ["db"], "NetworkID": "5" * 64, "IPAddress": "172.19.0.2"}}
    assert located("db", setting(DB, "NetworkSettings.Networks", elsewhere)) == (None, "db", 0)
    assert located("db.example.org") == (None, "db.example.org", 0)


def test_a_database_that_was_never_started_is_found_by_the_network_of_its_project() -> None:
    waiting = {"dms_default": {"Aliases": ["db"], "NetworkID": "", "IPAddress": ""}}
    assert located("db", setting(DB, "NetworkSettings.Networks", waiting))[0] == DB


def test_of_two_containers_with_one_name_the_running_one_is_meant() -> None:
    stopped = [added(DB, "old-db"), setting("old-db", "State.Status", "exited")]
    assert located("db", *stopped)[0] == DB
    with pytest.raises(DatabaseError, match="the name of 2 containers"):
        located("db", added(DB, "old-db"))


def test_a_link_is_a_name_for_its_container() -> None:
    assert located("postgres", setting(WEB, "HostConfig.Links", ["/dms-db-1:/dms-web-1/postgres"]))[0] == DB


def test_a_server_on_the_host_is_reached_by_the_hosts_address() -> None:
    assert located("host.docker.internal") == (None, "172.18.0.1", 5432)
    assert located("172.18.0.1", port=5433) == (None, "172.18.0.1", 5433)
    assert located("pg", setting(WEB, "HostConfig.ExtraHosts", ["pg:host-gateway"])) == (None, "172.18.0.1", 5432)
    assert located("pg", setting(WEB, "HostConfig.ExtraHosts", ["pg:10.1.2.3"])) == (None, "pg", 0)


def test_a_port_that_a_container_publishes_is_that_container() -> None:
    elsewhere = setting(DB, "NetworkSettings.Networks", {})
    published = setting(DB, "HostConfig.PortBindings", {"5432/tcp": [{"HostIp": "", "HostPort": "5433"}]})
    assert located("host.docker.internal", elsewhere, published, port=5433) == (DB, "", 5432)
    assert located("192.168.7.7", elsewhere, published, port=5433) == (DB, "", 5432)
    assert located("192.168.7.7", elsewhere, published, port=5432) == (None, "192.168.7.7", 5432)
    assert located("192.168.7.8", elsewhere, published, port=5433) == (None, "192.168.7.8", 5433)
    on_host = [setting(WEB, "HostConfig.NetworkMode", "host"), setting(WEB, "NetworkSettings.Networks", {})]
    assert located("localhost", elsewhere, published, *on_host, port=5433) == (DB, "", 5432)
    assert located("localhost", elsewhere, *on_host, port=5433) == (None, "127.0.0.1", 5433)


def test_a_shared_network_namespace_has_one_localhost() -> None:
    shared = [setting(WEB, "HostConfig.NetworkMode", "container:" + fleet()[DB].identity)]
    assert located("127.0.0.1", *shared, setting(WEB, "NetworkSettings.Networks", {})) == (DB, "", 5432)
    assert located("localhost") == (WEB, "", 5432)


def test_a_socket_in_a_shared_volume_is_the_other_containers() -> None:
    socket = {"Type": "volume", "Name": "run", "Source": "/v/run/_data", "Destination": "/var/run/postgresql"}
    shared = [setting(WEB, "Mounts", [socket]), setting(DB, "Mounts", [socket])]
    assert located("/var/run/postgresql", *shared) == (DB, "", 5432)
    of_host = setting(WEB, "Mounts", [{"Type": "bind", "Source": "/run/postgresql", "Destination": "/pg"}])
    assert located("/pg", of_host) == (None, "/run/postgresql", 0)


def test_a_place_in_a_container_is_as_the_container_sees_it() -> None:
    containers = fleet()
    url = "postgresql+psycopg2://me:s%2Fcret@db:6432/papermerge?sslmode=verify-full&sslrootcert=/certs/ca.pem"
    place = parse_database_url(url, "here")
    server = find_server(containers[WEB], place, list(containers.values()))
    inside = reach(place, "here", containers[WEB], server)
    assert (inside.container, inside.host, inside.port) == ("docker:dms-db-1", "127.0.0.1", 6432)
    assert (inside.name, inside.user, inside.password) == ("papermerge", "me", "s/cret")
    assert inside.options == (("sslmode", "require"),)


def test_a_host_that_nobody_knows_is_an_error_that_says_where_it_was_looked_for() -> None:
    containers = fleet(setting(DB, "NetworkSettings.Networks", {}))
    place = parse_database_url("postgresql://me@db/papermerge", "here")
    server = find_server(containers[WEB], place, list(containers.values()))
    with pytest.raises(DatabaseError, match=r"host db \(here\) is no container on the networks of container dms-web-1"):
        reach(place, "here", containers[WEB], server, lambda _name: False)
    assert reach(place, "here", containers[WEB], server, lambda _name: True).host == "db"


# Which containers are a Papermerge


def test_web_and_worker_are_one_instance_and_the_server_speaks_for_it() -> None:
    instance = find(InspectedEngine())
    assert instance.names == (WEB, WORKER)
    assert instance.database.container == "docker:dms-db-1"
    assert "key of dms" not in repr(instance)
    assert "pass" not in repr(instance)


def test_helpers_are_of_the_instance_and_say_nothing_of_its_version() -> None:
    image = setting("ocr", "Config.Image", "papermerge/ocrworker:0.3.1")
    ocr = [
        added(WORKER, "ocr"),
        image,
        setting("ocr", "Config.WorkingDir", "/app"),
        environment("ocr", "CORE_APP", None),
    ]
    assert find(InspectedEngine(*ocr)).names == (WEB, WORKER, "ocr")


def test_a_database_with_the_environment_of_all_services_is_no_helper() -> None:
    url = "postgresql://papermerge:x@db/papermerge"
    assert find(InspectedEngine(environment(DB, URL, url))).names == (WEB, WORKER)


def test_an_older_container_that_was_left_behind_does_not_speak_for_the_instance() -> None:
    old = [
        added(WEB, "left-behind"),
        setting("left-behind", "Config.Image", "papermerge/papermerge:3.4.1"),
        setting("left-behind", "State.Status", "exited"),
        setting("left-behind", "Created", "2027-01-01T00:00:00.0Z"),
    ]
    instance = find(InspectedEngine(*old))
    assert instance.version == "3.5.3"
    assert set(instance.names) == {WEB, WORKER, "left-behind"}


def test_two_that_serve_one_database_with_different_media_are_not_guessed_between(tmp_path: Path) -> None:
    mounts = [{"Type": "bind", "Source": str(tmp_path), "Destination": "/core_app/media"}]
    second = [added(WEB, "second"), setting("second", "Mounts", mounts), setting("second", "Created", "2027")]
    with pytest.raises(SettingError, match=f"second, dms-web-1 run with one database.*{tmp_path}.*dms_media/_data"):
        find(InspectedEngine(*second), media_root=None)
    assert find(InspectedEngine(*second)).media_root == "/m"
    stopped = setting(WEB, "State.Status", "exited")
    assert find(InspectedEngine(*second, stopped), media_root=None).media_root == str(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        [setting(WEB, "Config.WorkingDir", "/"), setting(WORKER, "Config.WorkingDir", "/")],
        [environment(WEB, "CORE_APP", None), environment(WORKER, "CORE_APP", None)],
    ],
)
def test_an_image_under_another_name_is_recognized_by_its_directory(changes: list[Change]) -> None:
    renamed = [setting(name, "Config.Image", "our/dms:7") for name in (WEB, WORKER)]
    instance = find(InspectedEngine(*renamed, *changes), app_version="3.5.3")
    assert instance.names == (WEB, WORKER)


def test_other_software_is_no_papermerge() -> None:
    def change(containers: dict[str, dict[str, Any]]) -> None:
        for document in containers.values():
            document["Config"].update(Image="our/shop:3.5.3", WorkingDir="/app", Env=["PATH=/bin", "PM_MODE=x"])

    request = ContainerRequest(media_root="/m")
    assert find_container_instance(Settings, request, [InspectedEngine(change)]) == (None, [])


def test_a_setting_that_cannot_be_read_is_one_error_for_the_whole_project() -> None:
    without = [environment(name, URL, None) for name in (WEB, WORKER)]
    with pytest.raises(SettingError, match=f"no {URL} in environment of container dms-web-1"):
        find(InspectedEngine(*without))
    place = parse_database_url("postgresql://me@elsewhere/papermerge", "here")
    assert find(InspectedEngine(*without), database=place).database == place


def test_a_secret_in_a_file_is_not_mistaken_for_the_images_default() -> None:
    changes = [environment(name, URL, "sqlite:////db/db.sqlite3") for name in (WEB, WORKER)]
    changes += [environment(name, URL + "_FILE", "/run/secrets/url") for name in (WEB, WORKER)]
    with pytest.raises(SettingError, match=URL + "_FILE of container dms-web-1 .* papermerge_backup_database_url"):
        find(InspectedEngine(*changes))


def test_two_projects_are_two_instances_and_the_error_lists_them() -> None:
    def change(containers: dict[str, dict[str, Any]]) -> None:
        added(WEB, "other-web")(containers)
        other = containers["other-web"]
        other["Config"]["Labels"] = {"com.docker.compose.project": "other"}
        other["Config"]["Env"].append(f"{URL}=postgresql://papermerge@192.168.1.5/archive")

    with pytest.raises(SettingError) as refusal:
        find(InspectedEngine(change))
    assert "dms-web-1 of compose project dms (docker, Papermerge 3.5.3, running)" in refusal.value.message
    assert "other-web of compose project other" in refusal.value.message
    assert find(InspectedEngine(change), container="other-web").database.host == "192.168.1.5"
    assert find(InspectedEngine(change), container=fleet()[WORKER].identity[:12]).names == (WEB, WORKER)


def test_a_podman_container_is_read_although_it_says_some_things_otherwise() -> None:
    def change(containers: dict[str, dict[str, Any]]) -> None:
        for document in containers.values():
            document["Name"] = document["Name"].lstrip("/")
            document["ImageName"] = document["Config"].pop("Image")
            document["Config"]["Entrypoint"] = "/bin/sh /entrypoint.sh"
            labels = document["Config"]["Labels"]
            labels["io.podman.compose.project"] = labels.pop("com.docker.compose.project")
            # Podman gives the network's name for its id.
            networks = document["NetworkSettings"]["Networks"]
            networks["dms_default"]["NetworkID"] = "dms_default"
            if document["Mounts"]:
                mount = document["Mounts"][0]
                mount["Source"] = mount["Source"].replace("/var/lib/docker", "/home/pm/.local/share/containers/storage")

    engine = InspectedEngine(change)
    engine.program, engine.name = "/usr/bin/podman", "podman"
    instance = find(engine)
    assert instance.names == (WEB, WORKER)
    assert instance.compose_project == "dms"
    assert instance.database.container == "podman:dms-db-1"


def test_files_that_configure_a_project_are_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  web:\n    env_file:\n      - web.env  # settings\n      - path: ./more.env\n"
        "        required: false\n    image: x\n  worker:\n    env_file: 'worker.env'\n"
        "    volumes:\n      - not.env:/x\n"
    )
    for name in ("web.env", "more.env", "worker.env", "not.env", ".env", "logging.yaml"):
        (tmp_path / name).write_text("x")
    mounts = [
        {"Type": "bind", "Source": str(tmp_path / "logging.yaml"), "Destination": "/core_app/logging.yaml"},
        {"Type": "bind", "Source": str(tmp_path), "Destination": "/core_app/media"},
    ]
    labels = {
        "com.docker.compose.project.working_dir": str(tmp_path),
        "com.docker.compose.project.config_files": "compose.yaml,override.yaml",
    }
    web = fleet(setting(WEB, "Config.Labels", labels), setting(WEB, "Mounts", mounts))[WEB]
    assert configuration_files([web, web]) == tuple(
        str(tmp_path / name) for name in ("compose.yaml", ".env", "logging.yaml", "web.env", "more.env", "worker.env")
    )


# The engine's program


def program(directory: Path, script: str, seconds: float = 60) -> Engine:
    path = directory / "docker"
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    path.chmod(0o755)
    return Engine(str(path), seconds)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("time.sleep(30)", "did not end within 1 seconds"),
        ("sys.stderr.write('x' * (1 << 20) + chr(10) + 'storage is broken'); sys.exit(125)", "status 125: x+"),
        ("sys.exit('permission denied while trying to connect to the Docker daemon socket')", "become"),
        ("sys.exit('Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?')", "does not run"),
        ("print('x') if sys.argv[1] == 'ps' else print('{}')", "no list"),
        ("print('x') if sys.argv[1] == 'ps' else print('[')", "no JSON"),
    ],
)
def test_an_engine_that_fails_or_hangs_is_an_error_that_says_so(tmp_path: Path, script: str, said: str) -> None:
    engine = program(tmp_path, script, seconds=1 if "sleep" in script else 60)
    with pytest.raises(ToolError, match=said):
        engine.containers()
    found, notes = find_container_instance(Settings, ContainerRequest(), [engine])
    assert found is None
    assert len(notes) == 1


def test_an_engine_that_never_stops_talking_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    engine = program(tmp_path, "while True: sys.stdout.write('0' * (1 << 20))")
    with pytest.raises(ToolError, match=f"wrote more than {64 << 20} bytes"):
        engine.containers()


def test_a_container_that_goes_while_it_is_looked_at_is_no_failure(tmp_path: Path) -> None:
    script = f"""
first = not __import__('os').path.exists({str(tmp_path / "asked")!r})
if sys.argv[1] == 'ps':
    print('a b' if first else 'a')
elif len(sys.argv) == 5:
    open({str(tmp_path / "asked")!r}, 'w')
    sys.exit('Error: No such container: b')
else:
    print('[{{"Name": "/a"}}]')
"""
    assert program(tmp_path, script).containers() == [{"Name": "/a"}]


# The test bench's own rule


@pytest.mark.parametrize(("value", "outcome"), [("true", "Failed"), ("", "Skipped")])
def test_without_an_engine_ci_fails_and_others_skip(monkeypatch: pytest.MonkeyPatch, value: str, outcome: str) -> None:
    monkeypatch.setenv("CI", value)
    with pytest.raises(BaseException, match="dockerd did not start") as end:
        without_engine(MissingEngine("dockerd did not start"))
    assert type(end.value).__name__ == outcome
