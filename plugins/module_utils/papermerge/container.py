# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One container as ``docker inspect`` or ``podman inspect`` describes it; nothing here asks the engine."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

#: Compose, podman-compose and Swarm each have their own words for the same.
PROJECT_LABELS = ("com.docker.compose.project", "io.podman.compose.project", "com.docker.stack.namespace")
SERVICE_LABELS = ("com.docker.compose.service", "io.podman.compose.service", "com.docker.swarm.service.name")
WORKING_DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
CONFIGURATION_LABELS = ("com.docker.compose.project.config_files", "com.docker.compose.project.environment_file")
ONE_OFF_LABEL = "com.docker.compose.oneoff"
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}\Z")


@dataclass(frozen=True)
class ImageName:
    """What an image is called: ``registry:5000/papermerge/papermerge:3.5.3@sha256:…`` in its parts.

    ``name`` is the last word of the repository. Empty where there is only an id; ``tag`` is empty where none is given.
    """

    repository: str
    name: str
    tag: str


def parse_image(text: str) -> ImageName:
    """Read an image's name. A digest, an id and the port of a registry are no tags."""
    if _IMAGE_ID.match(text):
        return ImageName("", "", "")
    repository = text.partition("@")[0]
    directory, slash, last = repository.rpartition("/")
    name, _colon, tag = last.partition(":")
    return ImageName(directory + slash + name, name, tag)


@dataclass(frozen=True)
class Mount:
    """Something mounted in a container. ``source``: a path on the host, empty for a tmpfs; ``volume``: its name.

    ``subpath``: the part of a volume that is mounted, with a slash before it; the source has it already.
    """

    kind: str
    source: str
    destination: str
    volume: str = ""
    driver: str = ""
    subpath: str = ""

    def describe(self) -> str:
        """Return what a user calls it."""
        return "volume {0}".format(self.volume) if self.volume else "{0} {1}".format(self.kind, self.source)


@dataclass(frozen=True)
class Attachment:
    """A container's place in one network: the names and addresses that others reach it by."""

    network: str
    network_id: str
    names: Tuple[str, ...] = ()
    addresses: Tuple[str, ...] = ()
    gateway: str = ""


@dataclass(frozen=True)
class Container:
    """A container. ``state``: running, exited, created, paused, …; ``created``: a text that sorts by time.

    ``networking``: the engine's network mode, such as ``host`` or ``container:ID``. ``published``: (address, port) on
    the host and the container's port, for TCP. ``extra_hosts``: names to addresses that its creator gave it.
    ``links``: names that this container alone has for others, to their names.
    """

    engine: str
    identity: str
    name: str
    image: ImageName
    state: str
    created: str
    environment: Mapping[str, str] = field(repr=False)
    working_directory: str
    command: Tuple[str, ...]
    labels: Mapping[str, str] = field(repr=False)
    mounts: Tuple[Mount, ...]
    networks: Tuple[Attachment, ...]
    networking: str
    published: Tuple[Tuple[str, int, int], ...]
    exposed: Tuple[int, ...]
    extra_hosts: Mapping[str, str]
    links: Mapping[str, str]
    pod: str

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    @property
    def project(self) -> str:
        """The compose project or the stack, empty where there is none."""
        return self._label(PROJECT_LABELS)

    @property
    def service(self) -> str:
        """The service's name within the project."""
        name = self._label(SERVICE_LABELS)
        stack = self.labels.get(PROJECT_LABELS[2], "")
        return name[len(stack) + 1 :] if stack and name.startswith(stack + "_") else name

    @property
    def is_one_off(self) -> bool:
        return self.labels.get(ONE_OFF_LABEL, "").lower() == "true"

    def _label(self, names: Tuple[str, ...]) -> str:
        return next((self.labels[name] for name in names if self.labels.get(name)), "")

    def mount_of(self, path: str) -> Optional[Mount]:
        """Return the innermost mount that holds a path of the container, None for a path of its own layer."""
        holding = [mount for mount in self.mounts if is_below(path, mount.destination)]
        return max(holding, key=lambda mount: len(mount.destination)) if holding else None

    def mounts_below(self, path: str) -> List[Mount]:
        """Return what is mounted below a path, the path itself left out."""
        return [mount for mount in self.mounts if mount.destination != path and is_below(mount.destination, path)]


def is_below(path: str, directory: str) -> bool:
    """Tell whether a normalized absolute path is a directory or in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def on_the_host(mount: Mount, path: str) -> str:
    """Return the host's path of a path that a mount holds."""
    return posixpath.normpath(posixpath.join(mount.source, posixpath.relpath(path, mount.destination)))


def parse_container(document: Mapping[str, Any], engine: str) -> Container:
    """Read one element of ``inspect``. What is absent in it, as it is in some releases of either engine, is empty."""
    settings = _mapping(document, "Config")
    host = _mapping(document, "HostConfig")
    network = _mapping(document, "NetworkSettings")
    state = _mapping(document, "State")
    identity = str(document.get("Id") or "")
    name = str(document.get("Name") or "").lstrip("/")
    return Container(
        engine=engine,
        identity=identity,
        name=name,
        image=parse_image(str(settings.get("Image") or document.get("ImageName") or "")),
        state=str(state.get("Status") or ("running" if state.get("Running") else "exited")).lower(),
        created=str(document.get("Created") or ""),
        environment=_environment(settings.get("Env")),
        working_directory=posixpath.normpath(str(settings.get("WorkingDir") or "/")),
        command=tuple(str(word) for word in _list(settings.get("Entrypoint")) + _list(settings.get("Cmd"))),
        labels={str(key): str(value) for key, value in _mapping(settings, "Labels").items()},
        mounts=_mounts(document, host),
        networks=tuple(
            _attachment(key, value, name, identity, settings)
            for key, value in _mapping(network, "Networks").items()
            if isinstance(value, Mapping)
        ),
        networking=str(host.get("NetworkMode") or ""),
        published=_published(host.get("PortBindings")) + _published(network.get("Ports")),
        exposed=tuple(port for port in (_port(key) for key in _mapping(settings, "ExposedPorts")) if port is not None),
        extra_hosts=_extra_hosts(_list(host.get("ExtraHosts"))),
        links=_links([host] + list(_mapping(network, "Networks").values())),
        pod=str(document.get("Pod") or ""),
    )


def _mapping(document: Mapping[str, Any], key: str) -> Dict[str, Any]:
    value = document.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> List[Any]:
    if isinstance(value, str):
        return [value] if value else []
    return list(value) if isinstance(value, (list, tuple)) else []


def _environment(assignments: Any) -> Dict[str, str]:
    pairs = (str(assignment).partition("=") for assignment in _list(assignments))
    return {name: value for name, equals, value in pairs if equals}


def _mounts(document: Mapping[str, Any], host: Mapping[str, Any]) -> Tuple[Mount, ...]:
    found = {}
    subpaths = {}
    for wish in _list(host.get("Mounts")):
        subpath = str(_mapping(_mapping({"": wish}, ""), "VolumeOptions").get("Subpath") or "").strip("/")
        subpaths[posixpath.normpath(str(wish.get("Target") or "/"))] = "/" + subpath if subpath else ""
    for mount in _list(document.get("Mounts")):
        kind = str(mount.get("Type") or "bind")
        destination = posixpath.normpath(str(mount.get("Destination") or "/"))
        subpath = subpaths.get(destination, "") if kind == "volume" else ""
        one = Mount(
            kind,
            "" if kind == "tmpfs" else str(mount.get("Source") or "") + subpath,
            destination,
            str(mount.get("Name") or "") if kind == "volume" else "",
            str(mount.get("Driver") or ""),
            subpath,
        )
        found[one.destination] = one
    # Docker lists what --tmpfs made here only.
    for place in _mapping(host, "Tmpfs"):
        found.setdefault(posixpath.normpath(place), Mount("tmpfs", "", posixpath.normpath(place)))
    return tuple(found.values())


def _attachment(
    network: str, value: Mapping[str, Any], name: str, identity: str, settings: Mapping[str, Any]
) -> Attachment:
    names = [name, identity[:12], identity, str(settings.get("Hostname") or "")]
    names += [str(alias) for key in ("Aliases", "DNSNames") for alias in _list(value.get(key))]
    fixed = _mapping(value, "IPAMConfig")
    addresses = [value.get("IPAddress"), value.get("GlobalIPv6Address")]
    addresses += [fixed.get("IPv4Address"), fixed.get("IPv6Address")]
    return Attachment(
        network,
        str(value.get("NetworkID") or ""),
        tuple(dict.fromkeys(known.lower() for known in names if known)),
        tuple(dict.fromkeys(str(address) for address in addresses if address)),
        str(value.get("Gateway") or ""),
    )


def _published(ports: Any) -> Tuple[Tuple[str, int, int], ...]:
    found = []
    for key, places in (ports if isinstance(ports, Mapping) else {}).items():
        inside = _port(key)
        for place in _list(places):
            outside = str(place.get("HostPort") or "")
            if inside is not None and outside.isdigit():
                found.append((str(place.get("HostIp") or ""), int(outside), inside))
    return tuple(found)


def _port(text: str) -> Optional[int]:
    number, _slash, protocol = str(text).partition("/")
    return int(number) if number.isdigit() and protocol in ("", "tcp") else None


def _extra_hosts(lines: List[Any]) -> Dict[str, str]:
    """Read "name:address" or, as newer releases write it, "name=address"; an address may hold colons."""
    found = {}
    for line in lines:
        match = re.match(r"([^:=]+)[:=](.+)\Z", str(line))
        if match:
            found[match.group(1).lower()] = match.group(2).strip("[]")
    return found


def _links(holders: List[Any]) -> Dict[str, str]:
    """Read "db:alias" of a network and "/db:/app/alias" of the engine's first network."""
    found = {}
    for holder in holders:
        for link in _list(holder.get("Links") if isinstance(holder, Mapping) else None):
            name, _colon, alias = str(link).partition(":")
            found[(alias or name).rpartition("/")[2].lower()] = name.lstrip("/")
    return found
