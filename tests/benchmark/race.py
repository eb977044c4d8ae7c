# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the measure: who runs when, on what, and what each run has to find before it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmark.contenders import (
    EXTRACT,
    FULL,
    PLAYBOOK,
    PLUS_ONE,
    RESTORE,
    RESUMED,
    UNCHANGED,
    VERIFY,
    Contender,
    OurPlaybooks,
    emptied,
)
from tests.benchmark.measure import Command, Run, RunFailed, touch_memory
from tests.benchmark.media_tree import MadeTree
from tests.benchmark.results import Results, Row, Section
from tests.benchmark.sites import Site

GROWTH = 0.01
#: Done one after another with what one create has stored.
CYCLE = (FULL, RESTORE, VERIFY, EXTRACT)


@dataclass(frozen=True)
class Rounds:
    """How often: ordinary contenders, and slow ones. ``ballast``: bytes of memory to be touched before each run."""

    ordinary: int
    slow: int
    ballast: int


class Race:
    """All parts on one tree at one site. ``stored``: a directory for what the contenders store."""

    def __init__(
        self,
        site: Site,
        name: str,
        made: MadeTree,
        contenders: Sequence[Contender],
        stored: Path,
        rounds: Rounds,
        results: Results,
    ) -> None:
        self._site = site
        self._name = name
        self._made = made
        self._contenders = contenders
        self._stored = stored
        self._rounds = rounds
        self._results = results

    def run(self, parts: Sequence[str]) -> None:
        """Measure these parts."""
        cycle = [part for part in CYCLE if part in parts]
        if cycle:
            self._cycles(cycle)
        incremental = [part for part in (UNCHANGED, PLUS_ONE) if part in parts]
        if incremental:
            self._incremental(incremental)
        if RESUMED in parts:
            self._resumed()
        if PLAYBOOK in parts:
            self._playbook()

    def _able(self, parts: Sequence[str]) -> list[Contender]:
        return [contender for contender in self._contenders if any(contender.takes_part(part) for part in parts)]

    def _rounds_of(self, contender: Contender) -> int:
        return min(self._rounds.slow, self._rounds.ordinary) if contender.slow else self._rounds.ordinary

    def _cycles(self, parts: Sequence[str]) -> None:
        """Round after round, everybody backs up into an empty place, brings back, verifies, extracts."""
        for number in range(self._rounds.ordinary):
            for contender in self._able(parts):
                if number < self._rounds_of(contender):
                    self._cycle(contender, parts)

    def _cycle(self, contender: Contender, parts: Sequence[str]) -> None:
        contender.place = emptied(self._stored / contender.key)
        self._site.clear()
        contender.prepare()
        if contender.takes_part(FULL):
            created = self._take(contender, contender.create())
            if FULL in parts:
                self._add(FULL, contender, created, contender.stored_bytes())
        if RESTORE in parts and contender.takes_part(RESTORE):
            self._site.clear()
            self._add(RESTORE, contender, self._take(contender, contender.restore()))
            self._site.clear()
        if VERIFY in parts and contender.takes_part(VERIFY):
            self._add(VERIFY, contender, self._take(contender, contender.verify()))
        if EXTRACT in parts and contender.takes_part(EXTRACT):
            emptied(contender.extracted)
            self._add(EXTRACT, contender, self._take(contender, contender.extract(self._made.tree.example)))
            self._require_extracted(contender)
            emptied(contender.extracted)
        emptied(contender.place)

    def _require_extracted(self, contender: Contender) -> None:
        wanted = self._site.outside(f"{self._site.source}/media/{self._made.tree.example}").stat().st_size
        found = [path.stat().st_size for path in contender.extracted.rglob("*") if path.is_file()]
        if wanted not in found:
            raise RunFailed(f"{contender.name} did not extract {self._made.tree.example}: {found}")

    def _incremental(self, parts: Sequence[str]) -> None:
        """Who is compared runs side by side, each with what it has stored before. Slow ones run alone after them."""
        able = self._able(parts)
        groups = [[contender for contender in able if not contender.slow]]
        groups += [[contender] for contender in able if contender.slow]
        for group in groups:
            for contender in group:
                contender.place = emptied(self._stored / contender.key)
                contender.prepare()
                self._take(contender, contender.create())
            for part in parts:
                self._repeat(part, [contender for contender in group if contender.takes_part(part)])
            self._made.shrink()
            for contender in group:
                emptied(contender.place)

    def _repeat(self, part: str, group: Sequence[Contender]) -> None:
        for _round in range(max(map(self._rounds_of, group), default=0)):
            new_stored: int | None = None
            if part == PLUS_ONE:
                before = len(self._made.grown)
                self._made.grow(GROWTH)
                self._site.own()
                new_stored = _packed_size(self._made.grown[before:])
            for contender in group:
                before = contender.stored_bytes()
                taken = self._take(contender, contender.again())
                row = self._add(part, contender, taken, contender.stored_bytes() - before)
                if new_stored is not None:
                    row.facts.setdefault("new_stored", []).append(new_stored)

    def _resumed(self) -> None:
        """Cut where half of what is stored in the end has passed; what goes on is measured, or begins again."""
        able = self._able([RESUMED])
        sizes: dict[str, int] = {}
        for _round in range(self._rounds.ordinary):
            for contender in able:
                if contender.key not in sizes:
                    contender.place = emptied(self._stored / contender.key)
                    contender.prepare()
                    self._take(contender, contender.create())
                    sizes[contender.key] = contender.stored_bytes()
                contender.place = emptied(self._stored / contender.key)
                contender.prepare()
                cut = contender.cut(sizes[contender.key] // 2)
                if cut is not None:
                    self._take(contender, cut)
                before = contender.stored_bytes()
                taken = self._take(contender, contender.again())
                row = self._add(RESUMED, contender, taken, contender.stored_bytes() - before)
                row.facts.update(stored=sizes[contender.key], kept=before)
                emptied(contender.place)

    def _playbook(self) -> None:
        """A whole create of which nothing has changed, and a play of as many tasks that do nothing."""
        for contender in self._able([PLAYBOOK]):
            assert isinstance(contender, OurPlaybooks)
            contender.place = emptied(self._stored / contender.key)
            contender.prepare()
            tasks = _tasks_of(contender.create())
            section = Section(PLAYBOOK, self._name, self._site.key)
            for _round in range(self._rounds.ordinary):
                empty = self._take(contender, contender.empty_play(tasks))
                self._results.add(section, "empty", f"a play of {tasks} empty tasks", True, empty)
                self._add(PLAYBOOK, contender, self._take(contender, contender.create()))
            emptied(contender.place)

    def _take(self, contender: Contender, command: Command) -> Run:
        touch_memory(self._stored, self._rounds.ballast)
        return contender.run(command)

    def _add(self, part: str, contender: Contender, taken: Run, stored: int | None = None) -> Row:
        section = Section(part, self._name, self._site.key)
        tell(f"{part}, {self._name}, {self._site.name}: {contender.name}: {taken.seconds:.2f} s")
        return self._results.add(section, contender.key, contender.name, part in contender.reference, taken, stored)


def _packed_size(places: Sequence[Path]) -> int:
    """Return how many bytes files take as `tar | zstd -1` stores them."""
    listing = b"\0".join(os.fsencode(place) for place in places)
    packing = ["bash", "-c", "set -o pipefail; tar -c -P --null -T - | zstd -1 -q -c | wc -c"]
    return int(subprocess.run(packing, input=listing, stdout=subprocess.PIPE, check=True).stdout)


def _tasks_of(command: Command) -> int:
    done = subprocess.run(
        list(map(str, command.words)),
        env=command.environment,
        cwd=command.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RunFailed(f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return sum(line.startswith("TASK [") for line in done.stdout.splitlines())


def tell(text: str) -> None:
    """Say how far the measure is."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
