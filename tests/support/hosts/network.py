# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of one bench: a bridge, and for each host a namespace of its own with one cable to the bridge."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from tests.support.hosts.commands import BenchError, execute

# Nobody else should use the first; the others are for machines where somebody does.
RANGES = ("10.77.{}.0/24", "198.18.{}.0/24", "172.29.{}.0/24", "192.168.{}.0/24")


@dataclass(frozen=True)
class Network:
    """The names of a bench's bridge, cables and namespaces, all made from its number, and its addresses."""

    number: int
    range: ipaddress.IPv4Network

    @property
    def bridge(self) -> str:
        """The name of the bridge, a network device of this machine."""
        return f"pmbench{self.number}"

    def namespace(self, host: str) -> str:
        """Return the name of the host's network namespace."""
        return f"pmbench{self.number}-{host}"

    def cable(self, index: int) -> str:
        """Return the name of this machine's end of the host's cable; the host's end is its eth0."""
        return f"pmb{self.number}h{index}"

    def address(self, index: int) -> str:
        """Return the address of the host (1 to 253; this machine is the network's first address)."""
        return str(self.range[index + 1])

    def create(self) -> None:
        """Make the bridge and give this machine the first address. Raises BenchError when that cannot be done."""
        execute(["ip", "link", "add", self.bridge, "type", "bridge"])
        execute(["ip", "address", "add", f"{self.range[1]}/{self.range.prefixlen}", "dev", self.bridge])
        execute(["ip", "link", "set", self.bridge, "up"])

    def connect(self, host: str, index: int) -> None:
        """Make the host's namespace with an eth0 that is plugged into the bridge."""
        namespace, cable = self.namespace(host), self.cable(index)
        # Always the same hardware address for an address, so that nobody's neighbour table goes stale.
        hardware = f"02:70:6d:{self.number:02x}:00:{index:02x}"
        execute(["ip", "netns", "add", namespace])
        inside = ["ip", "-n", namespace]
        peer = ["peer", "name", "eth0", "address", hardware, "netns", namespace]
        execute(["ip", "link", "add", cable, "type", "veth", *peer])
        execute(["ip", "link", "set", cable, "master", self.bridge, "up"])
        execute([*inside, "address", "add", f"{self.address(index)}/{self.range.prefixlen}", "dev", "eth0"])
        execute([*inside, "link", "set", "lo", "up"])
        execute([*inside, "link", "set", "eth0", "up"])

    def disconnect(self, host: str, index: int) -> None:
        """Remove the host's cable and namespace, if they are there."""
        if self.cable(index) in _links():
            execute(["ip", "link", "delete", self.cable(index)])
        if self.namespace(host) in _namespaces():
            execute(["ip", "netns", "delete", self.namespace(host)])


def free_network(number: int) -> Network:
    """Return a network for the bench of that number that overlaps nothing that this machine can reach.

    Raises BenchError when every range is taken.
    """
    taken = _taken_ranges()
    for pattern in RANGES:
        network = ipaddress.IPv4Network(pattern.format(number))
        if not any(network.overlaps(other) for other in taken):
            return Network(number, network)
    tried = ", ".join(pattern.format(number) for pattern in RANGES)
    raise BenchError(f"no free address range for test hosts: all of {tried} overlap routes of this machine (ip route)")


def remove_leftovers(number: int) -> None:
    """Remove the cables, namespaces and bridge that a bench of that number left behind."""
    network = Network(number, ipaddress.IPv4Network("0.0.0.0/0"))
    cables = network.cable(0)[:-1]
    for link in _links():
        if link == network.bridge or (link.startswith(cables) and link.removeprefix(cables).isdigit()):
            execute(["ip", "link", "delete", link])
    for namespace in _namespaces():
        if namespace.startswith(network.namespace("")):
            execute(["ip", "netns", "delete", namespace])


def _taken_ranges() -> list[ipaddress.IPv4Network]:
    routes = json.loads(execute(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout or "[]")
    destinations = (route["dst"] for route in routes if route["dst"] != "default")
    return [ipaddress.IPv4Network(destination, strict=False) for destination in destinations]


def _links() -> list[str]:
    return [link.name for link in Path("/sys/class/net").iterdir()]


def _namespaces() -> list[str]:
    directory = Path("/run/netns")
    return [namespace.name for namespace in directory.iterdir()] if directory.is_dir() else []
