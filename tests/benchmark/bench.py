# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's measure, which ./dev bench runs.

Nothing here fails because something is slow: the numbers are for people. Everything that is compared is measured on the
same tree within minutes, one contender after another and round after round, since a machine is not the same all day.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmark.community_general import community_general
from tests.benchmark.contenders import (
    PARTS,
    Contender,
    Digests,
    OurPlaybooks,
    Ours,
    Rsync,
    Tar,
    TarOnly,
    TarPackedHere,
    TarPackedThere,
    TarSynced,
)
from tests.benchmark.facts import CHECKOUT, available_memory, commit, host_versions, machine_facts, versions
from tests.benchmark.measure import RunFailed
from tests.benchmark.media_tree import SHAPES, MadeTree, room_for
from tests.benchmark.other_tools import ArchiveModule, Borg, ManageBackup, Restic
from tests.benchmark.performance import markdown, write_documents
from tests.benchmark.race import Race, Rounds, tell
from tests.benchmark.results import Results
from tests.benchmark.sites import Local, OverSsh, Site
from tests.support.hosts.bench import HostBench
from tests.support.hosts.commands import BenchError
from tests.support.hosts.storage import claim_directory, remove_tree, unmount_under
from tests.support.papermerge.install import InstallError, installed_papermerge
from tests.support.papermerge.instance import PapermergeError

DESCRIPTION = "Measure this collection against other tools, local and over ssh."
ROUNDS, SLOW_ROUNDS = 5, 2
SEED = 20
#: The most that exists at a time, in sizes of the tree: it, and two of: a copy, what is stored, what is restored.
COPIES = 3.2
#: Of a run, in sizes of the tree: what it writes, and the memory that it needs besides.
WRITTEN = 1.2
ON_HOST = "/srv/bench"
SITES = ("local", "ssh")
CONTENDERS = ("tar-only", "tar-synced", "tar-here", "rsync", "playbooks", "restic", "borg", "papermerge", "archive")


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        reports = [json.loads(path.read_text("utf-8")) for path in options.add]
        if not options.measure_nothing:
            with _work_directory(options) as work:
                reports.append(_measure(options, work))
            print(f"\n{markdown(reports[-1])}")
        if options.write_docs:
            write_documents(reports, CHECKOUT / "docs")
            print("written: docs/performance.md, docs/performance.svg")
    except (BenchError, RunFailed, InstallError, PapermergeError, OSError, subprocess.SubprocessError) as error:
        print(f"./dev bench: {error}", file=sys.stderr)
        return 1
    return 0


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        words = [word for word in text.split(",") if word]
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return words

    return parse


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=DESCRIPTION)
    add = parser.add_argument
    add("--only", type=_some_of(PARTS), default=list(PARTS), help=f"parts, with commas: {', '.join(PARTS)} [all]")
    add("--tree", type=_some_of(list(SHAPES)), default=["incompressible"], help=f"{', '.join(SHAPES)} [incompressible]")
    add("--site", type=_some_of(SITES), default=list(SITES), help=f"{', '.join(SITES)} [both]")
    add("--skip", type=_some_of(CONTENDERS), default=[], help=f"leave out some of {', '.join(CONTENDERS)}")
    add("--scale", type=float, default=1.0, help="size of the trees; 1: as they are named [%(default)s]")
    add("--rounds", type=int, default=ROUNDS, help="runs of each [%(default)s]")
    add("--slow-rounds", type=int, default=SLOW_ROUNDS, help="runs of slow ones, not more than --rounds [%(default)s]")
    add("--seed", type=int, default=SEED, help="of the content of the trees [%(default)s]")
    add(
        "--place",
        choices=("memory", "disk"),
        default="memory",
        help="where everything lies: in memory, so that programs are compared and not disks [memory], or on disk",
    )
    add("--directory", type=Path, default=_cache() / "bench", help="where to work [%(default)s]")
    add("--keep", action="store_true", help="leave the last tree and results where they are, in memory, too")
    add("--write-docs", action="store_true", help="write docs/performance.md and docs/performance.svg")
    add("--add", type=Path, action="append", default=[], metavar="JSON", help="an earlier run for --write-docs")
    add("--measure-nothing", action="store_true", help="only write what --add names")
    return parser.parse_args()


def _cache() -> Path:
    given = os.environ.get("PAPERMERGE_BACKUP_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "papermerge-backup"


def _needed(options: argparse.Namespace) -> int:
    return int(COPIES * max(room_for(SHAPES[name], options.scale) for name in options.tree))


@contextlib.contextmanager
def _work_directory(options: argparse.Namespace) -> Iterator[Path]:
    """Yield an empty directory, in memory if wanted, that is gone afterwards."""
    lock = claim_directory(options.directory)
    if lock is None:
        raise BenchError(f"another run works in {options.directory}; wait for it, or choose a --directory")
    work: Path = options.directory / "work"
    try:
        unmount_under(work)
        remove_tree(work)
        work.mkdir(mode=0o700)
        if options.place == "memory":
            _require_room(available_memory(), _needed(options), "memory", "--place disk or a smaller --scale")
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=90%,nr_inodes=0", "tmpfs", work], check=True)
        else:
            free = shutil.disk_usage(work).free
            _require_room(free, _needed(options), str(work), "another --directory or a smaller --scale")
        yield work
    finally:
        if options.keep:
            print(f"kept: {work}")
        else:
            unmount_under(work)
            remove_tree(work)
        os.close(lock)


def _require_room(free: int, needed: int, where: str, way_out: str) -> None:
    if free < needed:
        raise BenchError(f"{needed / 1e9:.1f} GB are needed in {where}, {free / 1e9:.1f} are free; choose {way_out}")


def _measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    results = Results()
    report: dict[str, Any] = {
        "command": shlex.join(["./dev", "bench", *sys.argv[1:]]),
        "commit": commit(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": options.seed,
        "scale": options.scale,
        "place": options.place,
        "machine": machine_facts(),
        "versions": versions([name for name in ("restic", "borg") if name not in options.skip]),
        "trees": {},
        "file_systems": {},
    }
    path = CHECKOUT / "build" / f"bench-{report['began'].replace(':', '').replace('-', '')}.json"
    report["file"] = str(path.relative_to(CHECKOUT))
    try:
        for name in options.tree:
            if "local" in options.site:
                site = Local(work)
                _race(options, site, name, work, results, report)
            if "ssh" in options.site:
                with _host(work, report) as over_ssh:
                    _race(options, over_ssh, name, work, results, report)
    finally:
        # Hours of measuring are not thrown away because of the last of them.
        report["results"] = results.as_list()
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        tell(f"kept: {report['file']}")
    return report


@contextlib.contextmanager
def _host(work: Path, report: dict[str, Any]) -> Iterator[Site]:
    place = work / "host"
    place.mkdir(exist_ok=True)
    with HostBench() as bench:
        host = bench.start("bench", binds={place: ON_HOST})
        report["versions"].update(host_versions(host))
        yield OverSsh(host, ON_HOST, place)


def _race(
    options: argparse.Namespace, site: Site, name: str, work: Path, results: Results, report: dict[str, Any]
) -> None:
    begun = time.monotonic()
    made = MadeTree(site.outside(site.source), SHAPES[name], options.scale, options.seed)
    site.own()
    tree = made.tree
    tell(
        f"{name}, {site.name}: {tree.files:,} files in {tree.directories:,} directories, "
        f"{tree.media_bytes / 1e9:.2f} GB, database {tree.database_bytes / 1e6:.1f} MB, "
        f"made in {time.monotonic() - begun:.1f} s"
    )
    report["trees"][name] = {**vars(tree), "words": SHAPES[name].words}
    report["file_systems"][site.name] = site.file_system()
    stored = work / "stored"
    stored.mkdir(exist_ok=True)
    ballast = int(WRITTEN * room_for(SHAPES[name], options.scale)) if options.place == "memory" else 0
    rounds = Rounds(options.rounds, options.slow_rounds, ballast)
    contenders = _contenders(options, site, stored, report)
    Race(site, name, made, contenders, stored, rounds, results).run(options.only)
    for path in (site.outside(site.source), stored):
        shutil.rmtree(path)


def _contenders(options: argparse.Namespace, site: Site, stored: Path, report: dict[str, Any]) -> list[Contender]:
    local = isinstance(site, Local)
    kinds: list[type[Contender]] = [TarOnly, Tar if local else TarPackedThere]
    kinds += [] if local else [TarPackedHere]
    kinds += [TarSynced] if options.place == "disk" else []
    # Each reference stands before what is compared with it.
    kinds += [Rsync, Digests, Ours, OurPlaybooks, *([Restic, Borg] if local else [])]
    found = [kind(site, stored) for kind in kinds if kind.key not in options.skip]
    if local and "full" in options.only:
        if "papermerge" not in options.skip:
            installation = installed_papermerge()
            report["versions"]["Papermerge"] = installation.version
            found.append(ManageBackup(site, stored, installation))
        if "archive" not in options.skip:
            collection = community_general(_cache() / "bench-tools")
            report["versions"]["community.general"] = collection.version
            found.append(ArchiveModule(site, stored, collection))
    return found


if __name__ == "__main__":
    sys.exit(main())
