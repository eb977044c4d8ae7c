# SPDX-License-Identifier: GPL-3.0-or-later
"""What the project wants of itself, and what the runs say to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from tests.benchmark.contenders import EXTRACT, FULL, PLAYBOOK, PLUS_ONE, RESTORE, RESUMED, UNCHANGED, VERIFY
from tests.benchmark.measure import Run
from tests.benchmark.results import Results, Row, Section, pairs, streamed

#: Steps of a create that the media are read in, as the manifest's timings name them.
MEDIA_STEPS = ("scan", "recognise", "rewrite", "archive", "settle")
#: What moves for the media: everything but looking for the instance, its database and its settings files.
OTHER_OPERATIONS = ("start", "describe", "dump_database", "archive_config")
BYTES_A_FILE = 16
PART_BYTES = 256 << 20
#: Of the local full create, by tree; the times of the other trees are nobody's target.
FULL_LIMITS = {"incompressible": 1.2, "half-text": 1.5}
ORDINARY = tuple(FULL_LIMITS)
MOST_PEAK = 120_000_000
#: More files and bytes than this, and a peak counts as one that must not grow.
MANY_FILES, MANY_BYTES = 900_000, 15_000_000_000


@dataclass(frozen=True)
class Seen:
    """A wanted value, ``at most`` unless ``least``, and the one that was seen."""

    words: str
    wanted: float
    value: float
    unit: str = " times"
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.wanted if self.least else self.value <= self.wanted


def seen(results: Results, trees: dict[str, dict[str, int]]) -> list[Seen]:
    """Return every target that the results say something about. ``trees``: counts of each tree by name."""
    found: list[Seen] = []
    for look in (_full, _stored, _restore, _verify, _unchanged, _plus_one, _playbook, _extract, _resumed):
        found += look(results)
    return found + list(_peaks(results, trees))


def _ours(results: Results, part: str) -> Iterator[tuple[Section, Row]]:
    for section in results.sections():
        row = results.row(section, "ours")
        if section.part == part and row is not None:
            yield section, row


def _streamed(results: Results, part: str) -> Iterator[tuple[Section, Row]]:
    """Locally the agents write parts by themselves, and nobody counts them."""
    return ((section, row) for section, row in _ours(results, part) if section.site == "ssh")


def _against(
    part: str, key: str, wanted: Callable[[Section], float | None], least: bool = False
) -> Callable[[Results], list[Seen]]:
    """Return a look at ours against another row of the same section; with ``least`` at the other against ours."""

    def look(results: Results) -> list[Seen]:
        found = []
        for section, ours in _ours(results, part):
            other, limit = results.row(section, key), wanted(section)
            if other is None or limit is None:
                continue
            runs = (other.runs, ours.runs) if least else (ours.runs, other.runs)
            words = f"{part}, {section.tree}, {section.site}: "
            words += f"as fast as {other.name}" if least else f"time of `{other.name}`"
            found.append(Seen(words, limit, pairs(*runs), least=least))
        return found

    return look


def _full(results: Results) -> list[Seen]:
    def limit(section: Section) -> float | None:
        return (1.1 if section.site == "ssh" else FULL_LIMITS[section.tree]) if section.tree in ORDINARY else None

    def restic(section: Section) -> float | None:
        return 2.5 if section.tree in ORDINARY else None

    return _against(FULL, "tar", limit)(results) + _against(FULL, "restic", restic, least=True)(results)


def _stored(results: Results) -> list[Seen]:
    found = []
    for section, ours in _ours(results, FULL):
        tar = results.row(section, "tar")
        if tar is not None and tar.stored_bytes and ours.stored_bytes and section.tree in ORDINARY:
            words = f"full, {section.tree}, {section.site}: stored size of `{tar.name}`"
            found.append(Seen(words, 1.05, ours.stored_bytes / tar.stored_bytes))
    return found


def _restore(results: Results) -> list[Seen]:
    def local(limit: float) -> Callable[[Section], float | None]:
        return lambda section: limit if section.site == "local" and section.tree in ORDINARY else None

    return [*_against(RESTORE, "tar", local(1.0))(results), *_against(RESTORE, "restic", local(3.0), True)(results)]


def _verify(results: Results) -> list[Seen]:
    return _against(VERIFY, "openssl", lambda section: 1.3 if section.tree in ORDINARY else None)(results)


def _unchanged(results: Results) -> list[Seen]:
    found = []
    for section, ours in _ours(results, UNCHANGED):
        rsync = results.row(section, "rsync")
        steps = [sum(timings.get(step, 0.0) for step in MEDIA_STEPS) for timings in ours.answers("timings")]
        if rsync is not None and steps and section.site == "ssh":
            ratio = median(step / other.seconds for step, other in zip(steps, rsync.runs, strict=False))
            found.append(Seen(f"unchanged, {section.tree}, ssh: media steps to `rsync -a`", 0.8, ratio))
    return found


def _plus_one(results: Results) -> list[Seen]:
    found = []
    for section, ours in _streamed(results, PLUS_ONE):
        scanned = [int(files) for files in ours.answers("files")]
        moved = [media_moved(run) for run in ours.runs]
        if not scanned or None in moved:
            continue
        ratios = [
            (count or 0) / (1.10 * stored + BYTES_A_FILE * files)
            for count, stored, files in zip(moved, ours.facts["new_stored"], scanned, strict=True)
        ]
        words = f"plus-one, {section.tree}, {section.site}: bytes moved to 1.10 of the new stored and 16 a file"
        found.append(Seen(words, 1.0, median(ratios)))
    return found


def media_moved(run: Run) -> int | None:
    """Return the bytes that moved for the media in a run of ours."""
    return streamed(run, OTHER_OPERATIONS)


def _playbook(results: Results) -> list[Seen]:
    found = []
    for section in results.sections():
        ours, empty = results.row(section, "playbooks"), results.row(section, "empty")
        if section.part == PLAYBOOK and ours is not None and empty is not None:
            more = median(run.seconds - other.seconds for run, other in zip(ours.runs, empty.runs, strict=False))
            found.append(Seen(f"playbook, {section.tree}, {section.site}: above {empty.name}", 2.0, more, " s"))
    return found


def _extract(results: Results) -> list[Seen]:
    found = []
    for section, ours in _ours(results, EXTRACT):
        if not section.tree.startswith("million"):
            continue
        found.append(Seen(f"extract, {section.tree}: one document", 5.0, ours.seconds, " s"))
        read, held = ours.answers("read_bytes"), ours.answers("parts_bytes")
        if read and held and held[0]:
            found.append(Seen(f"extract, {section.tree}: read of the parts", 2.0, 100 * read[0] / held[0], " %"))
    return found


def _resumed(results: Results) -> list[Seen]:
    found = []
    for section, ours in _streamed(results, RESUMED):
        moved = median(media_moved(run) or 0 for run in ours.runs)
        missing = ours.facts["stored"] - ours.facts["kept"]
        words = f"resumed, {section.tree}, {section.site}: bytes moved to 1.05 of the missing ones and a part"
        found.append(Seen(words, 1.0, moved / (1.05 * missing + PART_BYTES)))
    return found


def _peaks(results: Results, trees: dict[str, dict[str, int]]) -> Iterator[Seen]:
    for tree, counts in trees.items():
        if counts["files"] < MANY_FILES and counts["media_bytes"] < MANY_BYTES:
            continue
        peaks: dict[str, int] = {}
        for section in results.sections():
            row = results.row(section, "ours")
            if section.tree == tree and row is not None:
                for kind, peak in row.memory.items():
                    peaks[kind] = max(peaks.get(kind, 0), peak)
        for kind, peak in peaks.items():
            if peak > MOST_PEAK / 10:
                yield Seen(f"{tree}: peak of {kind}, all parts", MOST_PEAK / 1e6, peak / 1e6, " MB")
