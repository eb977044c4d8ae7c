# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker on a test host, and Papermerge in containers there as compose would have made them.

There is no registry: one image is made from the host's own directories, and what the tests need is built on it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.hosts.bench import HostBench
from tests.support.hosts.commands import BenchError, Completed
from tests.support.hosts.host import Host

ENTRIES = Path(__file__).parent / "container_images"
ENGINE_SECONDS = 60
SERVER_SECONDS = 60
PASSWORD = "pass/word@of%the+container"
"""The password of every database account here: one that a URL has to encode."""
ROOT_PASSWORD = "of the root of MariaDB"
SERVER_PORTS = {"postgresql": 5432, "mysql": 3306}
ENCODED_PASSWORD = "pass%2Fword%40of%25the%2Bcontainer"

# Of a host's directories, what a database server and a shell need. What is left out is most of the size.
SYSTEM = """
set -eu
cd /
tar --create --one-file-system --anchored --wildcards --exclude='usr/lib/x86_64-linux-gnu/libLLVM*' \\
  --exclude='usr/lib/*/perl*' --exclude='usr/lib/*/gconv' --exclude='usr/lib/python3*' --exclude='usr/lib/systemd' \\
  --exclude='usr/bin/docker*' --exclude='usr/bin/containerd*' --exclude='usr/bin/ctr' --exclude='usr/bin/dnet' \\
  --exclude='usr/bin/python3*' --exclude='usr/bin/aria_*' --exclude='usr/bin/myisam*' --exclude='usr/sbin/dockerd' \\
  --exclude='usr/sbin/runc' --exclude='usr/sbin/ovrouter' bin sbin lib lib64 usr/bin usr/sbin usr/lib usr/lib64 \\
  usr/share/postgresql usr/share/mysql usr/share/zoneinfo etc/passwd etc/group etc/nsswitch.conf etc/ld.so.cache \\
  etc/ld.so.conf etc/ld.so.conf.d etc/alternatives |
  docker import - system:1
"""
PATHS = "/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTRY = """COPY entrypoint.sh /entrypoint.sh
COPY nsswitch.conf /etc/nsswitch.conf
ENTRYPOINT ["/bin/sh", "/entrypoint.sh"]
"""
POSTGRES = f"""FROM system:1
ENV PATH={PATHS} LANG=C.UTF-8 PG_MAJOR=15 PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
{ENTRY}CMD ["postgres"]
"""
MARIADB = f"""FROM system:1
ENV PATH={PATHS} LANG=C.UTF-8
VOLUME /var/lib/mysql
EXPOSE 3306
{ENTRY}CMD ["mariadbd"]
"""
PAPERMERGE = f"""FROM system:1
ENV CORE_APP=/core_app PAPERMERGE__DATABASE__URL=sqlite:////db/db.sqlite3 PAPERMERGE__AUTH__USERNAME=admin \\
    PAPERMERGE__AUTH__EMAIL=admin@example.com PAPERMERGE__MAIN__API_PREFIX=""
WORKDIR /core_app
COPY core_app/ /core_app/
EXPOSE 80
{ENTRY}CMD ["server"]
"""


COLLECTION = Path(__file__).resolve().parents[2]
ON_HOST = "/opt/collection"
"""Where hosts get the collection's own code, for what is asked of it there without an agent."""

FIND = """
import dataclasses, json, sys
sys.path.insert(0, {place!r})
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge import containers
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.sources import source_of_environment

try:
    request = containers.ContainerRequest(**{request!r})
    found, notes = containers.find_container_instance(source_of_environment, request)
    print(json.dumps({{"found": dataclasses.asdict(found) if found else None, "notes": notes}}))
except BackupError as error:
    print(json.dumps({{"error": error.kind, "message": error.message}}))
"""


class MissingEngine(BenchError):
    """This machine cannot run a container engine."""


def without_engine(error: MissingEngine) -> NoReturn:
    """End a test that needs containers: in CI that is a failure, elsewhere a skip that says why."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"no container engine, and under CI there must be one: {error}")
    pytest.skip(f"no container engine: {error}")


class Docker:
    """Docker on a host of the bench, with the images postgres:15, mariadb:10.11 and papermerge/papermerge:3.5.3."""

    def __init__(self, host: Host) -> None:
        self.host = host

    @classmethod
    def start(cls, bench: HostBench, name: str = "docker", *, images: bool = True) -> Docker:
        """Start a host with an engine and make the images. Raises MissingEngine where the engine does not come up."""
        host = bench.start(name, containers=True)
        docker = cls(host)
        started = host.run(["systemctl", "start", "docker"], check=False, timeout=ENGINE_SECONDS)
        if started.returncode != 0:
            said = host.run("journalctl --unit docker --no-pager --lines 5 --output cat", check=False).stdout
            bench.remove(host)
            raise MissingEngine(f"dockerd did not start on a test host: {started.stderr.strip()} {said.strip()}")
        utilities = "plugins/module_utils"
        host.put_tree(COLLECTION / utilities, f"{ON_HOST}/ansible_collections/papermerge/backup/{utilities}")
        if images:
            docker._make_images()
        return docker

    def _make_images(self) -> None:
        self.host.run(SYSTEM, timeout=300)
        self.build("postgres:15", POSTGRES, "postgres")
        self.build("mariadb:10.11", MARIADB, "mariadb")
        self.build_papermerge("papermerge/papermerge:3.5.3", "3.5.3")

    def run(self, *words: str, check: bool = True, input: str | bytes | None = None, timeout: float = 60) -> Completed:
        """Run the docker program on the host. Raises BenchError."""
        return self.host.run(["docker", *words], check=check, input=input, timeout=timeout)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine says of a container."""
        found: list[dict[str, Any]] = json.loads(self.run("container", "inspect", name).stdout)
        return found[0]

    def build(self, image: str, recipe: str, entry: str, files: Mapping[str, str] | None = None) -> None:
        """Build an image from a recipe and files, with one of the entries in container_images."""
        context = f"/var/tmp/build-{image.replace('/', '-').replace(':', '-')}"
        self.host.put(f"{context}/Dockerfile", recipe)
        self.host.put(f"{context}/entrypoint.sh", (ENTRIES / f"{entry}-entrypoint.sh").read_text(encoding="utf-8"))
        # The hosts of the bench know no DNS, but the names of containers are DNS.
        for path, text in {"nsswitch.conf": "hosts: files dns\n", **(files or {})}.items():
            self.host.put(f"{context}/{path}", text)
        self.host.run(["env", "DOCKER_BUILDKIT=0", "docker", "build", "--quiet", "--tag", image, context], timeout=300)

    def build_papermerge(self, image: str, version: str, recipe: str = PAPERMERGE) -> None:
        """Build an image whose files say that version as those of 3.x do."""
        packages = ".venv/lib/python3.13/site-packages"
        files = {
            "pyproject.toml": f'[project]\nname = "papermerge"\nversion = "{version}"\n\n[tool.other]\nversion = "9"\n',
            f"{packages}/papermerge-{version}.dist-info/METADATA": f"Name: papermerge\nVersion: {version}\n",
            "papermerge/core/version.py": "from importlib.metadata import version\n\n__version__ = version('p')\n",
            # Left behind by an older release.
            "papermerge/core/__init__.py": "ALPHA = 'alpha'\nVERSION = (2, 1, 0, ALPHA, 0)\n",
        }
        self.build(image, recipe, "papermerge", {f"core_app/{path}": text for path, text in files.items()})

    def find(self, user: str = "root", **request: str) -> dict[str, Any]:
        """Look for a Papermerge in containers as a user of the host: {found, notes}, or {error, message}."""
        script = FIND.format(place=ON_HOST, request=request)
        answer = self.host.run(["python3", "-"], user=user, input=script, timeout=120).stdout
        result: dict[str, Any] = json.loads(answer)
        return result

    def mountpoint(self, volume: str) -> str:
        """Return the host's path of a named volume."""
        return self.run("volume", "inspect", "--format", "{{.Mountpoint}}", volume).stdout.strip()


@dataclass(frozen=True)
class Service:
    """One service of a compose file. ``volumes`` as compose writes them: ``name:/path``, ``/host/path:/path``."""

    name: str
    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[str] = ()
    command: Sequence[str] = ()
    options: Sequence[str] = ()


class Project:
    """A compose project on the host: its directory with a compose file, and what ``up`` makes of it."""

    def __init__(self, docker: Docker, name: str, services: Iterable[Service]) -> None:
        self.docker = docker
        self.name = name
        self.directory = f"/srv/{name}"
        self.services = {service.name: service for service in services}
        docker.host.put(f"{self.directory}/compose.yaml", self._text())
        docker.host.put(f"{self.directory}/.env", "COMPOSE_PROJECT_NAME=" + name + "\n", mode=0o600)

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.name}-{service}-1"

    def volume(self, name: str) -> str:
        """Return the engine's name of one of the project's volumes."""
        return f"{self.name}_{name}"

    def up(self) -> None:
        """Make the network and start a container for each service, with the labels and names that compose gives."""
        network = f"{self.name}_default"
        self.docker.run("network", "create", "--label", f"com.docker.compose.project={self.name}", network)
        for service in self.services.values():
            labels = {
                "com.docker.compose.project": self.name,
                "com.docker.compose.service": service.name,
                "com.docker.compose.container-number": "1",
                "com.docker.compose.oneoff": "False",
                "com.docker.compose.project.working_dir": self.directory,
                "com.docker.compose.project.config_files": f"{self.directory}/compose.yaml",
            }
            words = ["run", "--detach", "--name", self.container(service.name), "--network", network]
            words += ["--network-alias", service.name]
            for name, value in labels.items():
                words += ["--label", f"{name}={value}"]
            for name, value in service.environment.items():
                words += ["--env", f"{name}={value}"]
            for volume in service.volumes:
                source, colon, rest = volume.partition(":")
                named = bool(colon) and not source.startswith("/")
                words += ["--volume", f"{self.volume(source)}:{rest}" if named else volume]
            self.docker.run(*words, *service.options, service.image, *service.command)

    def _text(self) -> str:
        services = {
            service.name: {
                "image": service.image,
                "environment": dict(service.environment),
                "volumes": list(service.volumes),
                **({"command": list(service.command)} if service.command else {}),
            }
            for service in self.services.values()
        }
        return json.dumps({"services": services}, indent=2)  # JSON is YAML


def papermerge_project(
    docker: Docker,
    name: str,
    media: str = "media:/core_app/media",
    *extra: str,
    version: str = "3.5.3",
    engine: str = "postgresql",
) -> Project:
    """Return the project of Papermerge's documentation: application, worker and database server; not yet up.

    ``media``: the application's media volume as compose writes it, empty for none; ``extra``: more volumes. ``engine``:
    ``postgresql``, or ``mysql`` for MariaDB.
    """
    port = SERVER_PORTS[engine]
    environment = {
        "PAPERMERGE__DATABASE__URL": f"{engine}://papermerge:{ENCODED_PASSWORD}@db:{port}/papermerge",
        "PAPERMERGE__SECURITY__SECRET_KEY": "key of " + name,
    }
    volumes = [volume for volume in (media, *extra) if volume]
    account = {"POSTGRES_USER": "papermerge", "POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": "papermerge"}
    database = Service("db", "postgres:15", account, ["pgdata:/var/lib/postgresql/data"])
    if engine == "mysql":
        account = {"MARIADB_USER": "papermerge", "MARIADB_PASSWORD": PASSWORD, "MARIADB_DATABASE": "papermerge"}
        account["MARIADB_ROOT_PASSWORD"] = ROOT_PASSWORD
        database = Service("db", "mariadb:10.11", account, ["maria:/var/lib/mysql"])
    image = f"papermerge/papermerge:{version}"
    return Project(
        docker,
        name,
        [
            Service("worker", image, environment, volumes, ["worker"]),
            Service("web", image, environment, volumes),
            database,
        ],
    )


def wait_for_postgres(docker: Docker, container: str) -> None:
    """Return when the server in a container takes connections from outside of it. Raises BenchError."""
    _wait(docker, container, ["pg_isready", "--quiet", "--host=127.0.0.1"])


def wait_for_mariadb(docker: Docker, container: str) -> None:
    """Return when the server in a container takes connections from outside of it. Raises BenchError."""
    # The account exists before the port is open, so a refused login would be no reason to wait.
    _wait(docker, container, ["mariadb-admin", "--host=127.0.0.1", "--user=nobody", "ping"])


def _wait(docker: Docker, container: str, question: Sequence[str]) -> None:
    end = time.monotonic() + SERVER_SECONDS
    while docker.run("exec", container, *question, check=False).returncode != 0:
        if time.monotonic() > end:
            said = docker.run("logs", container, check=False)
            raise BenchError(f"the server in {container} does not answer: {said.stdout[-1000:]}{said.stderr[-1000:]}")
        time.sleep(0.1)


def load(docker: Docker, project: Project, dump: bytes, media: Path) -> None:
    """Put a database (of pg_dump -Fc, or a script for psql or for MariaDB's client) and the files of a media directory
    into a project of `papermerge_project` that is up; files are root's, as the real images run as root. Raises
    BenchError.
    """
    database = project.container("db")
    docker.host.put_tree(media, media_directory(docker, project))
    if _is_mariadb(project):
        wait_for_mariadb(docker, database)
        ask_mariadb(docker, project, dump)
        return
    wait_for_postgres(docker, database)
    account = ["--username=papermerge", "--dbname=papermerge"]
    words = ["psql", *account, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]
    if dump.startswith(b"PGDMP"):
        words = ["pg_restore", *account, "--no-owner", "--exit-on-error"]
    docker.run("exec", "--interactive", database, *words, input=dump, timeout=120)


def ask_mariadb(docker: Docker, project: Project, script: str | bytes) -> str:
    """Run SQL as root in the database of a project with MariaDB; returns a line a row. Raises BenchError."""
    words = ["exec", "--interactive", "--env", f"MYSQL_PWD={ROOT_PASSWORD}", project.container("db"), "mariadb"]
    words += ["--user=root", "--skip-column-names", "papermerge"]
    return docker.run(*words, input=script, timeout=120).stdout


def _is_mariadb(project: Project) -> bool:
    return project.services["db"].image.startswith("mariadb:")


def media_directory(docker: Docker, project: Project) -> str:
    """Return the host's path of the media of a project of `papermerge_project` that is up."""
    mounts = docker.inspect(project.container("web"))["Mounts"]
    return str(next(mount["Source"] for mount in mounts if mount["Destination"] == "/core_app/media"))


def row_counts(docker: Docker, project: Project, tables: Iterable[str]) -> dict[str, int]:
    """Return the number of rows of tables in the database of a project of `papermerge_project`."""
    names = list(tables)
    if _is_mariadb(project):
        answers = ask_mariadb(docker, project, "".join(f"select count(*) from `{name}`;\n" for name in names)).split()
        return dict(zip(names, map(int, answers), strict=True))
    words = ["psql", "--username=papermerge", "--dbname=papermerge", "--no-align", "--tuples-only", "--file=-"]
    queries = "".join(f'SELECT count(*) FROM "{name}";\n' for name in names)
    numbers = docker.run("exec", "--interactive", project.container("db"), *words, input=queries).stdout.split()
    return dict(zip(names, map(int, numbers), strict=True))


def media_hashes(docker: Docker, project: Project) -> dict[bytes, str]:
    """Return the SHA-256 of every file in the media of a project of `papermerge_project`, by relative path."""
    script = "cd {0} && find . -type f -print0 | xargs -0 -r sha256sum --zero"
    lines = docker.host.run(script.format(media_directory(docker, project))).stdout.split("\0")[:-1]
    found = (line.partition("  ./") for line in lines)
    return {path.encode("utf-8", "surrogateescape"): digest for digest, _spaces, path in found}
