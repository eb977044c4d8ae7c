# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stored files that are read and hashed beside other work: hashing leaves Python's lock, so threads use every core."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import Tick, read_stored, require_stored

THREADS = 2
#: Each piece has to wait for Python's lock once or twice; while it is hashed, others have it.
PIECE_BYTES = 1 << 20


class PartChecks:
    """Checks stored files, (path, size, SHA-256) each, from entering the context on; leaving it ends the threads.

    ``tick`` is told the size of each piece, by one thread at a time.
    """

    def __init__(self, files: Iterable[tuple[Path, int, str]], tick: Tick) -> None:
        self._files = deque(files)
        self._tick = tick
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._problems: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _number in range(THREADS)]

    def __enter__(self) -> PartChecks:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait(self) -> None:
        """Wait until all are checked. Raises DamageError or RepositoryError, the first that was found."""
        for thread in self._threads:
            thread.join()
        if self._problems:
            raise self._problems[0]

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    self._check(*self._files.popleft())
                except IndexError:
                    return
        except BaseException as error:  # raised by whoever waits
            self._problems.append(error)
            self._stopped.set()

    def _check(self, path: Path, size: int, sha256: str) -> None:
        digest = hashlib.sha256()
        found = 0
        for piece in read_stored(path, PIECE_BYTES):
            if self._stopped.is_set():
                return
            digest.update(piece)
            found += len(piece)
            with self._lock:
                self._tick(len(piece))
        require_stored(str(path), (found, digest.hexdigest()), (size, sha256))
