# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge in Docker containers is found with nothing set: a real engine of a test host says what is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.containers import (
    ENCODED_PASSWORD,
    PAPERMERGE,
    PASSWORD,
    ROOT_PASSWORD,
    Docker,
    MissingEngine,
    Project,
    load,
    media_hashes,
    papermerge_project,
    row_counts,
    wait_for_mariadb,
    wait_for_postgres,
    without_engine,
)
from tests.support.generated.instance import GeneratedInstance, generate
from tests.support.hosts.bench import HostBench
from tests.support.playbooks import Playbooks, ProcessWatch


@pytest.fixture(scope="module")
def docker(host_bench: HostBench) -> Iterator[Docker]:
    """A host with an engine, for the tests of this file."""
    engine = start(host_bench, "docker")
    yield engine
    host_bench.remove(engine.host)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> GeneratedInstance:
    """What is in `dms`."""
    return generate("3.5", "postgresql", tmp_path_factory.mktemp("generated") / "instance")


@pytest.fixture(scope="module")
def dms(docker: Docker, instance: GeneratedInstance) -> Project:
    """Papermerge 3.5.3 with a worker and PostgreSQL, as its documentation has it: media in a named volume."""
    project = papermerge_project(docker, "dms")
    project.up()
    load(docker, project, instance.script, instance.media)
    return project


def start(bench: HostBench, name: str, *, images: bool = True) -> Docker:
    try:
        return Docker.start(bench, name, images=images)
    except MissingEngine as error:
        without_engine(error)


def found(docker: Docker, **request: str) -> dict[str, Any]:
    answer = docker.find(**request)
    assert "found" in answer, answer["message"]
    assert answer["found"] is not None, answer["notes"]
    instance: dict[str, Any] = answer["found"]
    return instance


def refused(docker: Docker, **request: str) -> tuple[str, str]:
    answer = docker.find(**request)
    assert "error" in answer, f"found {answer['found']}"
    return answer["error"], answer["message"]


def query(docker: Docker, database: dict[str, Any], question: str = "SELECT current_user") -> str:
    """Ask the server with the client of its container, as a backup does, from the place that was found."""
    engine, _colon, name = database["container"].partition(":")
    assert engine == "docker"
    client = ["psql", "--no-align", "--tuples-only", f"--host={database['host']}", f"--username={database['user']}"]
    words = ["exec", "--env", f"PGPASSWORD={database['password']}", name, *client, f"--command={question}"]
    return docker.run(*words, database["name"]).stdout.strip()


def test_an_instance_is_found_with_nothing_set(docker: Docker, dms: Project) -> None:
    instance = found(docker)
    assert instance["names"] == ["dms-web-1", "dms-worker-1"]
    assert instance["version"] == "3.5.3"
    assert instance["version_found_in"] == "tag of image papermerge/papermerge:3.5.3"
    assert instance["media_root"] == docker.mountpoint("dms_media")
    assert "volume dms_media" in instance["media_found_in"]
    assert "environment of container dms-web-1" in instance["media_found_in"]
    assert instance["database"]["container"] == "docker:dms-db-1"
    assert instance["database"]["password"] == PASSWORD
    assert query(docker, instance["database"]) == "papermerge"
    assert instance["environment"]["PAPERMERGE__SECURITY__SECRET_KEY"] == "key of dms"
    assert (instance["compose_project"], instance["project_dir"]) == ("dms", "/srv/dms")
    assert instance["configuration_files"] == ["/srv/dms/compose.yaml", "/srv/dms/.env"]
    assert instance["stopped"] is False


def test_a_stopped_application_is_found_all_the_same(docker: Docker, dms: Project) -> None:
    running = found(docker)
    docker.run("stop", "--time=0", "dms-web-1", "dms-worker-1")
    try:
        stopped = found(docker)
    finally:
        docker.run("start", "dms-web-1", "dms-worker-1")
    assert stopped.pop("stopped") is True
    assert running.pop("stopped") is False
    assert stopped == running


@pytest.mark.parametrize(("act", "undo", "state"), [("stop", "start", "exited"), ("pause", "unpause", "paused")])
def test_a_database_container_that_does_not_run_must_be_started(
    docker: Docker, dms: Project, act: str, undo: str, state: str
) -> None:
    docker.run(act, "dms-db-1")
    try:
        kind, message = refused(docker)
    finally:
        docker.run(undo, "dms-db-1")
        wait_for_postgres(docker, "dms-db-1")
    assert kind == "database"
    assert f"container dms-db-1, which is {state}" in message
    assert f"docker {undo} dms-db-1" in message


def test_a_user_without_rights_on_the_engine_is_told_to_become(docker: Docker, dms: Project) -> None:
    answer = docker.find(user="plain")
    assert answer["found"] is None
    (note,) = answer["notes"]
    assert "permission denied" in note
    assert "become" in note


def test_a_user_with_rights_on_the_engine_alone_is_told_to_become(docker: Docker, dms: Project) -> None:
    docker.host.run("usermod --append --groups docker doer")
    answer = docker.find(user="doer")
    assert answer.get("error") == "media", answer
    assert f"may not read {docker.mountpoint('dms_media')}: set become" in answer["message"]


def test_from_the_containers_of_one_host_to_those_of_another(
    docker: Docker, dms: Project, instance: GeneratedInstance, host_bench: HostBench, playbooks: Playbooks
) -> None:
    """With nothing in the inventory but the hosts."""
    watch = ProcessWatch()
    with watch.watching():
        inventory = {"old": docker.host.inventory("admin", ansible_become=True)}
        created = playbooks.run("create", inventory)
        assert created.status == 0, str(created)
        row = created.row("old")
        assert (row["result"], row["version"]) == ("ok", "3.5.3")
        assert row["originals"] == f"{instance.expected_rows}/{instance.expected_rows}"
        verified = playbooks.run("verify", inventory)
        assert verified.status == 0, str(verified)

        fresh = start(host_bench, "fresh")
        try:
            project = papermerge_project(fresh, "dms")
            project.up()
            wait_for_postgres(fresh, project.container("db"))
            target = {"new": fresh.host.inventory("admin", ansible_become=True)}
            restored = playbooks.run("restore", target, extra={"papermerge_backup_source": "old"})
            assert restored.status == 0, str(restored)
            assert row_counts(fresh, project, instance.counts) == instance.counts
            assert media_hashes(fresh, project) == instance.sha256
        finally:
            host_bench.remove(fresh.host)
    for secret in (PASSWORD, ENCODED_PASSWORD, "key of dms"):
        assert not [line for line in watch.with_word(secret) if "nsenter" not in line and "docker run" not in line]
        for run in (created, verified, restored):
            assert not run.says(secret)


def test_a_papermerge_on_mariadb_goes_from_the_containers_of_one_host_to_those_of_another(
    docker: Docker, tmp_path: Path, host_bench: HostBench, playbooks: Playbooks
) -> None:
    """The last line that runs on it. The account of MariaDB's image may not make databases, so root's is named."""
    instance = generate("3.0-3.2", "mysql", tmp_path / "instance")
    docker.run("tag", "papermerge/papermerge:3.5.3", f"papermerge/papermerge:{instance.version}")
    project = papermerge_project(docker, "older", version=instance.version, engine="mysql")
    project.up()
    watch = ProcessWatch()
    try:
        load(docker, project, instance.script, instance.media)
        settings = {"papermerge_backup_container": "older-web-1"}
        with watch.watching():
            source = {"maria": docker.host.inventory("admin", ansible_become=True)}
            created = playbooks.run("create", source, extra=settings)
            assert created.status == 0, str(created)
            row = created.row("maria")
            assert (row["result"], row["version"]) == ("ok", instance.version)
            assert row["originals"] == f"{instance.expected_rows}/{instance.expected_rows}"
            verified = playbooks.run("verify", source, extra={"papermerge_backup_verify_level": "deep"})
            assert verified.status == 0, str(verified)
    finally:
        docker.run("rm", "--force", "--volumes", *(project.container(service) for service in project.services))

    fresh = start(host_bench, "freshmaria")
    try:
        fresh.run("tag", "papermerge/papermerge:3.5.3", f"papermerge/papermerge:{instance.version}")
        there = papermerge_project(fresh, "older", version=instance.version, engine="mysql")
        there.up()
        wait_for_mariadb(fresh, there.container("db"))
        target = {"new": fresh.host.inventory("admin", ansible_become=True)}
        root = f"mysql://root:{quote(ROOT_PASSWORD)}@db/mysql"
        extra = {"papermerge_backup_source": "maria", "papermerge_backup_database_admin_url": root}
        with watch.watching():
            restored = playbooks.run("restore", target, extra=extra)
        assert restored.status == 0, str(restored)
        assert row_counts(fresh, there, instance.counts) == instance.counts
        assert media_hashes(fresh, there) == instance.sha256
        # And Papermerge's own account reaches it.
        words = ["exec", "--env", f"MYSQL_PWD={PASSWORD}", there.container("db"), "mariadb", "--user=papermerge"]
        words += ["--host=127.0.0.1", "--skip-column-names", "--execute=select count(*) from core_user", "papermerge"]
        assert int(fresh.run(*words).stdout) == instance.counts["core_user"]
    finally:
        host_bench.remove(fresh.host)
    for secret in (PASSWORD, ENCODED_PASSWORD, ROOT_PASSWORD, "key of older"):
        assert not watch.with_word(secret)
        for run in (created, verified, restored):
            assert not run.says(secret)


def test_a_mariadb_is_reached_in_its_own_container(docker: Docker, app: str) -> None:
    account = {"MARIADB_ROOT_PASSWORD": "of root", "MARIADB_DATABASE": "papermerge", "MARIADB_USER": "pm"}
    options = [f"--env={name}={value}" for name, value in {**account, "MARIADB_PASSWORD": PASSWORD}.items()]
    alias = ["--network=dms_default", "--network-alias=maria"]
    docker.run("run", "--detach", "--name=mysql", *alias, *options, "mariadb:10.11")
    try:
        url = f"PAPERMERGE__DATABASE__URL=mysql://pm:{ENCODED_PASSWORD}@maria:3306/papermerge"
        run_papermerge(docker, app, "--volume=app:/core_app/media", "--env", url)
        wait_for_mariadb(docker, "mysql")
        database = found(docker, container=app)["database"]
        assert database["container"] == "docker:mysql"
        words = ["exec", "--env", f"MYSQL_PWD={database['password']}", "mysql", "mariadb", f"--host={database['host']}"]
        words += [f"--user={database['user']}", "--skip-column-names", "--execute=SELECT CURRENT_USER()"]
        assert docker.run(*words, database["name"]).stdout.strip() == "pm@%"
    finally:
        docker.run("rm", "--force", "--volumes", "mysql")


def test_of_two_instances_the_setting_chooses(docker: Docker, dms: Project) -> None:
    other = papermerge_project(docker, "archive", "/srv/archive/originals:/core_app/media")
    other.up()
    try:
        kind, message = refused(docker)
        assert kind == "setting"
        assert "2 Papermerge instances" in message
        assert "dms-web-1 of compose project dms" in message
        assert "archive-web-1 of compose project archive" in message
        assert "papermerge_backup_container" in message

        chosen = found(docker, container="archive-worker-1")
        assert chosen["names"] == ["archive-web-1", "archive-worker-1"]
        assert chosen["media_root"] == "/srv/archive/originals"
        assert "bind /srv/archive/originals" in chosen["media_found_in"]
        assert chosen["database"]["container"] == "docker:archive-db-1"
        assert found(docker, project_dir="/srv/dms/")["database"]["container"] == "docker:dms-db-1"
        assert docker.find(project_dir="/opt/papermerge")["found"] is None
        assert "is no Papermerge" in refused(docker, container="dms-db-1")[1]
        assert "does not exist" in refused(docker, container="papermerge")[1]
    finally:
        docker.run("rm", "--force", "--volumes", *(other.container(service) for service in other.services))


def run_papermerge(docker: Docker, name: str, *options: str, image: str = "papermerge/papermerge:3.5.3") -> None:
    """Start an application without compose, on the network of `dms` and its database."""
    url = f"PAPERMERGE__DATABASE__URL=postgresql://papermerge:{ENCODED_PASSWORD}@dms-db-1/{name}"
    docker.run("run", "--detach", "--name", name, "--network=dms_default", "--env", url, *options, image)


@pytest.fixture
def app(docker: Docker, dms: Project) -> Iterator[str]:
    """The name of an application that the test starts in its own way."""
    yield "app"
    docker.run("rm", "--force", "--volumes", "app")


def test_media_in_the_containers_own_layer_is_reported_as_about_to_be_lost(docker: Docker, app: str) -> None:
    run_papermerge(docker, app)
    kind, message = refused(docker, container=app)
    assert kind == "media"
    assert "Nothing is there yet: mount a volume at /core_app/media" in message
    docker.run("exec", app, "mkdir", "-p", "/core_app/media/docvers")
    docker.run("exec", app, "touch", "/core_app/media/docvers/only-here.pdf")
    docker.run("stop", "--time=0", app)
    kind, message = refused(docker, container=app)
    assert kind == "media"
    assert "container app keeps its media directory /core_app/media" in message
    assert "in its own layer" in message
    assert "lost as soon as the container is removed or updated" in message
    # What the message says is what works.
    docker.run("cp", "app:/core_app/media", "/srv/copied-out")
    assert "(docker cp app:/core_app/media DIRECTORY)" in message
    assert docker.host.files_under("/srv/copied-out")[-1] == "/srv/copied-out/docvers/only-here.pdf"


def test_media_in_memory_is_reported_as_about_to_be_lost(docker: Docker, app: str) -> None:
    run_papermerge(docker, app, "--tmpfs=/core_app/media")
    kind, message = refused(docker, container=app)
    assert kind == "media"
    assert "in memory" in message
    assert "lost as soon as the container is stopped" in message


def test_media_in_a_directory_of_a_mounted_one_is_found(docker: Docker, app: str) -> None:
    docker.host.run(["mkdir", "-p", "/srv/data/papermerge/originals"])
    run_papermerge(
        docker, app, "--volume=/srv/data:/data", "--env=PAPERMERGE__MAIN__MEDIA_ROOT=/data/papermerge/originals/"
    )
    assert found(docker, container=app)["media_root"] == "/srv/data/papermerge/originals"


def test_media_behind_symbolic_links_is_found_where_the_container_finds_it(docker: Docker, app: str) -> None:
    docker.host.run("mkdir -p /srv/linked/real && ln -s /data/real /srv/linked/now")
    run_papermerge(docker, app, "--volume=/srv/linked:/data", "--env=PAPERMERGE__MAIN__MEDIA_ROOT=/link/media")
    docker.run("exec", app, "mkdir", "/link")
    docker.run("exec", app, "ln", "-s", "../data/now", "/link/media")
    assert found(docker, container=app)["media_root"] == "/srv/linked/real"


def test_other_mounts_below_the_media_directory_are_refused(docker: Docker, app: str) -> None:
    run_papermerge(docker, app, "--volume=/srv/one:/core_app/media", "--volume=/srv/other:/core_app/media/docvers:ro")
    kind, message = refused(docker, container=app)
    assert kind == "media"
    assert "bind /srv/other at /core_app/media/docvers" in message


def test_the_version_of_an_image_without_a_telling_tag_is_read_from_its_files(docker: Docker, app: str) -> None:
    docker.build_papermerge("registry.example:5000/our/dms", "3.4.1")
    run_papermerge(docker, app, "--volume=app:/core_app/media", image="registry.example:5000/our/dms")
    docker.run("stop", "--time=0", app)
    instance = found(docker, container=app)
    assert (instance["version"], instance["stopped"]) == ("3.4.1", True)
    assert instance["version_found_in"] == "/core_app/pyproject.toml in container app"


def test_the_version_is_read_from_the_installed_distribution_where_no_other_file_tells(
    docker: Docker, app: str
) -> None:
    recipe = PAPERMERGE.replace("COPY core_app/ /core_app/", "COPY core_app/.venv/ /core_app/.venv/")
    docker.build_papermerge("dms:latest", "3.5.2", recipe)
    run_papermerge(docker, app, "--volume=app:/core_app/media", image="dms:latest")
    instance = found(docker, container=app)
    assert instance["version"] == "3.5.2"
    assert instance["version_found_in"] == (
        "/core_app/.venv/lib/python3.13/site-packages/papermerge-3.5.2.dist-info in container app"
    )


def test_a_container_whose_version_nothing_tells_needs_the_setting(docker: Docker, app: str) -> None:
    docker.build_papermerge("dms:bare", "3.5.2", PAPERMERGE.replace("COPY core_app/ /core_app/\n", ""))
    run_papermerge(docker, app, "--volume=app:/core_app/media", image="dms:bare")
    kind, message = refused(docker, container=app)
    assert kind == "setting"
    assert "papermerge_backup_app_version" in message
    assert found(docker, container=app, app_version="3.5.2")["version"] == "3.5.2"


def test_the_database_of_a_container_tells_the_line_where_nothing_else_tells_the_version(
    docker: Docker, app: str
) -> None:
    docker.build_papermerge("dms:bare", "3.5.2", PAPERMERGE.replace("COPY core_app/ /core_app/\n", ""))
    words = ["exec", "dms-db-1", "psql", "--username=papermerge", "--set=ON_ERROR_STOP=1"]
    docker.run(*words, "--command=create database app")
    try:
        marker = "create table alembic_version (version_num text); insert into alembic_version values ('b2350127890a')"
        docker.run(*words, f"--command={marker}", "app")
        run_papermerge(docker, app, "--volume=app:/core_app/media", image="dms:bare")
        instance = found(docker, container=app)
        assert (instance["version"], instance["line_only"]) == ("3.5", True)
        assert "schema marker b2350127890a of database postgresql://papermerge@" in instance["version_found_in"]
        assert instance["database"]["name"] == "app"
    finally:
        docker.run("rm", "--force", "--volumes", app)
        docker.run(*words, "--command=drop database app")


def test_the_settings_file_of_an_older_release_is_read_from_its_container(docker: Docker, app: str) -> None:
    docker.run("tag", "papermerge/papermerge:3.5.3", "papermerge/papermerge:2.1.9")
    database = "type = 'pg'\nhost = 'db'\nname = 'older'\npassword = 'of toml'\n"
    toml = f"[main]\nmedia_root = '/data/media'\n[database]\n{database}"
    docker.host.put("/srv/old/papermerge.toml", toml)
    docker.host.run(["mkdir", "-p", "/srv/old/data/media"])
    options = ["--workdir=/app", "--volume=/srv/old/data:/data", "--network=dms_default"]
    options.append("--volume=/srv/old/papermerge.toml:/etc/papermerge/papermerge.toml:ro")
    docker.run("run", "--detach", "--name", app, *options, "papermerge/papermerge:2.1.9")
    instance = found(docker, container=app)
    assert instance["media_root"] == "/srv/old/data/media"
    assert instance["database"]["container"] == "docker:dms-db-1"
    assert instance["database"]["password"] == "of toml"
    assert "/etc/papermerge/papermerge.toml in container app" in instance["database_found_in"]
    assert instance["configuration_files"] == ["/srv/old/papermerge.toml"]


def test_a_sqlite_database_is_found_in_its_volume(docker: Docker, app: str) -> None:
    volumes = ["--volume=appdb:/db", "--volume=app:/core_app/media"]
    docker.run("run", "--detach", "--name", app, *volumes, "papermerge/papermerge:3.5.3")
    instance = found(docker, container=app)
    assert instance["database"]["engine"] == "sqlite"
    assert instance["database"]["path"] == docker.mountpoint("appdb") + "/db.sqlite3"
    assert instance["database"]["container"] == ""


@pytest.mark.parametrize(
    ("volume", "said"),
    [((), "SQLite database /db/db.sqlite3"), (("--volume=/srv/one.sqlite3:/db/db.sqlite3",), "as a single file")],
)
def test_a_sqlite_database_that_is_not_whole_outside_of_its_container_is_refused(
    docker: Docker, app: str, volume: tuple[str, ...], said: str
) -> None:
    docker.host.put("/srv/one.sqlite3", "")
    media = "--volume=app:/core_app/media"
    docker.run("run", "--detach", "--name", app, media, *volume, "papermerge/papermerge:3.5.3")
    kind, message = refused(docker, container=app)
    assert kind == "database"
    assert said in message


def test_an_engine_without_papermerge_and_one_that_does_not_run_are_no_errors(host_bench: HostBench) -> None:
    bare = start(host_bench, "bare", images=False)
    try:
        assert bare.find() == {"found": None, "notes": []}
        assert "does not exist" in refused(bare, container="papermerge")[1]
        bare.host.run("systemctl stop docker docker.socket")
        assert bare.find() == {
            "found": None,
            "notes": ["/usr/bin/docker is installed, but its engine does not run"],
        }
        assert "its engine does not run" in refused(bare, container="papermerge")[1]
        bare.host.hide("/usr/bin/docker")
        assert bare.find() == {"found": None, "notes": []}
    finally:
        host_bench.remove(bare.host)
