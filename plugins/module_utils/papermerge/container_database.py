# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which database server a container means by the host in its database URL, and how the host's programs reach it."""

from __future__ import annotations

import posixpath
import socket
from dataclasses import dataclass, replace
from typing import Callable, List, Optional, Sequence, Tuple

from ..database.place import DEFAULT_PORTS, DatabasePlace
from ..errors import DatabaseError
from .container import Attachment, Container

LOOPBACK = ("", "localhost", "127.0.0.1", "::1")
#: Names for the host that the engines themselves give to their containers.
HOST_NAMES = ("host.docker.internal", "gateway.docker.internal", "host.containers.internal")
HOST_GATEWAY = "host-gateway"
ANY_ADDRESS = ("", "0.0.0.0", "::")
#: Files of the application's container, which the database's container does not have.
FILE_OPTIONS = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_ca", "ssl_cert", "ssl_key")
#: A server that is asked from its own container cannot have the name in its certificate.
VERIFYING_MODES = ("verify-ca", "verify-full")


@dataclass(frozen=True)
class Server:
    """A database server: in a container, with its port there, or elsewhere, as the host reaches it."""

    container: Optional[Container]
    host: str
    port: int

    @property
    def identity(self) -> str:
        """The same text for the same server, whoever means it."""
        where = "container " + self.container.identity if self.container else self.host.lower()
        return "{0} port {1}".format(where, self.port)


def is_address_of_this_host(address: str) -> bool:
    """Tell whether an IP address is this host's own: only then can a socket be bound to it."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))
                return True
        except (OSError, ValueError):
            continue
    return False


def is_known_name(name: str) -> bool:
    """Tell whether this host can find the address of a name."""
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False


def find_server(
    app: Container,
    place: DatabasePlace,
    containers: Sequence[Container],
    is_own_address: Callable[[str], bool] = is_address_of_this_host,
) -> Server:
    """Return the server that a database URL in a container means.

    ``containers``: all of the same engine. Raises DatabaseError where several of them have the name.
    """
    containers = sorted(containers, key=lambda container: not container.is_running)
    port = place.port or DEFAULT_PORTS[place.engine]
    host = place.host.rstrip(".").lower() if not place.host.startswith("/") else place.host
    owner = _network_owner(app, containers)
    if host.startswith("/"):
        return _behind_socket(app, host, port, containers)
    if host in LOOPBACK or host.startswith("127."):
        if owner.networking == "host":
            return _on_this_host("127.0.0.1", port, containers)
        return _beside(app, owner, port, containers)
    host = app.extra_hosts.get(host, owner.extra_hosts.get(host, host))
    link = owner.links.get(host)
    named = [container for container in containers if container.name == link or _has_name(owner, container, host)]
    if len(named) > 1:
        named = [container for container in named if container.is_running] or named
    if len(named) > 1:
        raise DatabaseError(
            "the database host {0} of container {1} is the name of {2} containers on its networks: {3}; stop all but "
            "one of them, or set papermerge_backup_database_url".format(
                host, app.name, len(named), ", ".join(container.name for container in named)
            )
        )
    if named:
        # What shares the network of another container is reached by that one's name.
        return _beside(named[0], named[0], port, containers)
    if host in HOST_NAMES or host == HOST_GATEWAY:
        gateways = [network.gateway for network in owner.networks if network.gateway]
        return _on_this_host(gateways[0] if gateways else "127.0.0.1", port, containers)
    if any(host == network.gateway for network in owner.networks) or is_own_address(host):
        return _on_this_host(host, port, containers)
    return Server(None, place.host, place.port)


def _network_owner(container: Container, containers: Sequence[Container]) -> Container:
    """Return the container whose network a container uses: mostly its own."""
    mode, _colon, wanted = container.networking.partition(":")
    if mode != "container" or not wanted:
        return container
    return next((other for other in containers if wanted in (other.identity, other.name)), container)


def _beside(app: Container, owner: Container, port: int, containers: Sequence[Container]) -> Server:
    """Return who listens in one network namespace: a container that says so, else the one that was asked for."""
    for container in containers:
        if port in container.exposed and _network_owner(container, containers).identity == owner.identity:
            return Server(container, "", port)
    return Server(app, "", port)


def _behind_socket(app: Container, path: str, port: int, containers: Sequence[Container]) -> Server:
    """Return whose socket it is that a container has in a directory which it shares with another."""
    mount = app.mount_of(path)
    for container in containers:
        if mount is None or container.identity == app.identity or port not in container.exposed:
            continue
        if any(other.source == mount.source and mount.source for other in container.mounts):
            return Server(container, "", port)
    if mount is None or not mount.source:
        return Server(app, "", port)
    # A directory of the host: the server is one of the host's own.
    return Server(None, posixpath.normpath(posixpath.join(mount.source, posixpath.relpath(path, mount.destination))), 0)


def _on_this_host(address: str, port: int, containers: Sequence[Container]) -> Server:
    """Return who listens on a port of the host: the container that publishes it, else a server of the host's own."""
    for container in containers:
        if container.networking == "host" and port in container.exposed:
            return Server(container, "", port)
        for published_on, outside, inside in container.published:
            if outside == port and (published_on in ANY_ADDRESS or published_on == address):
                return Server(container, "", inside)
    return Server(None, address, port)


def _has_name(app: Container, other: Container, host: str) -> bool:
    """Tell whether a container finds another one under a name or an address, in a network that both are in."""
    if other.identity == app.identity:
        return False
    for mine in app.networks:
        for theirs in other.networks:
            if not _is_same(mine, theirs):
                continue
            if host in theirs.addresses or host in theirs.names:
                return True
            if host in [name + "." + theirs.network.lower() for name in theirs.names]:
                return True
            if other.service.lower() == host and other.project == app.project:
                return True
    return bool(app.pod and app.pod == other.pod and host in (other.name.lower(), other.service.lower()))


def _is_same(one: Attachment, other: Attachment) -> bool:
    # A container that was never started has no network id yet.
    if one.network_id and other.network_id:
        return one.network_id == other.network_id
    return one.network == other.network


def reach(
    place: DatabasePlace,
    found_in: str,
    app: Container,
    server: Server,
    is_known: Callable[[str], bool] = is_known_name,
) -> DatabasePlace:
    """Return the place of a server's database as the host reaches it: from the server's own container, or directly.

    Raises DatabaseError for a server whose container does not run and for a name that nobody knows.
    """
    container = server.container
    if container is None:
        if "." not in server.host and ":" not in server.host and server.host and not is_known(server.host):
            raise DatabaseError(
                "the database host {0} ({1}) is no container on the networks of container {2} ({3}), and this "
                "host does not know the name either; start or create the database's container, or set "
                "papermerge_backup_database_url".format(
                    server.host, found_in, app.name, ", ".join(network.network for network in app.networks) or "none"
                )
            )
        return replace(place, host=server.host, port=server.port)
    if not container.is_running:
        raise DatabaseError(
            "the database ({0}) is in container {1}, which is {2}: only a running server can be dumped; start it with: "
            "{3} {4} {1}".format(
                found_in,
                container.name,
                container.state,
                container.engine,
                "unpause" if container.state == "paused" else "start",
            )
        )
    return replace(
        place,
        # By address and not by socket: what may log in through the socket differs from image to image.
        host="127.0.0.1",
        port=0 if server.port == DEFAULT_PORTS[place.engine] else server.port,
        options=_inside_options(place.options),
        container="{0}:{1}".format(container.engine, container.name),
    )


def _inside_options(options: Tuple[Tuple[str, str], ...]) -> Tuple[Tuple[str, str], ...]:
    kept: List[Tuple[str, str]] = []
    for name, value in options:
        if name in FILE_OPTIONS:
            continue
        kept.append((name, "require" if name == "sslmode" and value in VERIFYING_MODES else value))
    return tuple(kept)
