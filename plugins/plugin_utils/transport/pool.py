# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that work side by side on one host: compression and hashing use every core only so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import chain, islice
from types import TracebackType
from typing import Generic, TypeVar

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Session

Job = TypeVar("Job")


class _Pending(Generic[Job]):
    """Jobs that nobody has begun, for several threads."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._ahead: list[Job] = []
        self._stopped = False

    def has_more(self) -> bool:
        """Tell whether there is a job to begin."""
        with self._lock:
            if not self._ahead and not self._stopped:
                self._ahead.extend(islice(self._jobs, 1))
            return bool(self._ahead)

    def __iter__(self) -> Iterator[Job]:
        while self.has_more():
            with self._lock:
                # Another thread may have been quicker.
                taken = [self._ahead.pop()] if self._ahead else []
            yield from taken

    def stop(self) -> None:
        """Let nobody begin another job."""
        with self._lock:
            self._stopped = True
            self._ahead.clear()


def _none_beside() -> Session:
    raise BackupError("there can be no other agent beside this one")


class AgentPool:
    """Up to ``size`` agents on the host of a session, the session's own being the first.

    The others are started when there is a job for them, and are ended by leaving the context. Where a session cannot
    have others beside it, it does all the jobs.
    """

    def __init__(self, session: Session, size: int) -> None:
        self._session = session
        self._start = session.another or _none_beside
        self._size = size if session.another is not None else 1
        self._lock = threading.Lock()
        self._others: list[Session] = []
        self._problems: list[BaseException] = []

    def __enter__(self) -> AgentPool:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for session in self._others:
            session.close()
        self._others.clear()

    def each(self, jobs: Iterator[Job], work: Callable[[Session, Job], object]) -> None:
        """Give each job to the next agent that is free; ``jobs`` is asked by one thread at a time.

        Raises the first error after no agent works any more. Jobs that were begun by others are ended or finished.
        """
        self._problems.clear()
        pending = _Pending(jobs)
        threads: list[threading.Thread] = []
        try:
            ours = iter(pending)
            # Before the others begin: for a single job nobody else is needed.
            first = list(islice(ours, 1))
            for number in range(self._size - 1):
                if not pending.has_more():
                    break
                threads.append(threading.Thread(target=self._work_beside, args=(number, pending, work), daemon=True))
                threads[-1].start()
            for job in chain(first, ours):
                work(self._session, job)
        except BaseException as error:
            with self._lock:
                self._problems.append(error)
            pending.stop()
            # What the others do is of no use any more; without an agent they end.
            for session in self._others:
                session.close()
        for thread in threads:
            thread.join()
        if self._problems:
            raise self._problems[0]

    def _work_beside(self, number: int, pending: _Pending[Job], work: Callable[[Session, Job], object]) -> None:
        try:
            session = self._other(number)
            for job in pending:
                work(session, job)
        except BaseException as error:
            with self._lock:
                self._problems.append(error)
            pending.stop()

    def _other(self, number: int) -> Session:
        with self._lock:
            if number < len(self._others):
                return self._others[number]
        session = self._start()
        with self._lock:
            self._others.append(session)
        return session
