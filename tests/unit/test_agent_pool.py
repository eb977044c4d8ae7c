# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that work side by side: every job is done once, and the first error ends all of them."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, ConnectionLost
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pool import AgentPool
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers, Session
from tests.support.snapshots import local_agent


def read(session: Session, path: str) -> None:
    session.call(Call("read_file", {"path": path}), Handlers())


def test_jobs_are_shared_out_among_agents_that_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)
    by_agent: Counter[int] = Counter()

    def work(session: Session, number: int) -> None:
        if number < 2:
            both.wait()
        read(session, "/dev/null")
        by_agent[id(session)] += 1

    with local_agent() as session, AgentPool(session, 2) as pool:
        pool.each(iter(range(20)), work)
    assert by_agent.total() == 20
    assert len(by_agent) == 2


def test_agents_that_were_started_serve_again_and_end_with_the_pool() -> None:
    agents: dict[int, Session] = {}
    pids: set[int] = set()
    both = threading.Barrier(2, timeout=20)

    def work(session: Session, _number: int) -> None:
        both.wait()
        agents[id(session)] = session
        pids.add(session.pid)  # type: ignore[attr-defined]

    with local_agent() as session:
        with AgentPool(session, 2) as pool:
            pool.each(iter(range(2)), work)
            pool.each(iter(range(2)), work)
            assert len(pids) == 2
        (beside,) = pids - {session.pid}
        with pytest.raises(ProcessLookupError):
            os.kill(beside, 0)
        read(session, "/dev/null")


def test_no_second_agent_is_started_where_there_is_no_need_or_no_way() -> None:
    with local_agent() as session:
        session.another = None
        with AgentPool(session, 2) as pool:
            pool.each(iter(["/dev/null"] * 5), read)
    with local_agent() as session:
        started: list[Session] = []
        start = session.another
        assert start is not None
        session.another = lambda: started.append(start()) or started[-1]  # type: ignore[func-returns-value]
        with AgentPool(session, 2) as pool:
            pool.each(iter([]), read)
            pool.each(iter(["/dev/null"]), read)
        assert not started


def test_the_first_error_is_raised_and_no_job_is_begun_after_it() -> None:
    begun: list[int] = []

    def jobs() -> Iterator[int]:
        yield from range(1000)

    def work(session: Session, number: int) -> None:
        begun.append(number)
        if number == 3:
            raise BackupError("the fourth")
        time.sleep(0.01)
        read(session, "/dev/null")

    with local_agent() as session, AgentPool(session, 2) as pool, pytest.raises(BackupError, match="the fourth"):
        pool.each(jobs(), work)
    assert len(begun) < 10


def test_an_agent_that_dies_beside_ends_the_work() -> None:
    def work(session: Session, number: int) -> None:
        if number == 5:
            os.kill(session.pid, 9)  # type: ignore[attr-defined]
        read(session, "/dev/null")

    with local_agent() as session, AgentPool(session, 2) as pool, pytest.raises(ConnectionLost):
        pool.each(iter(range(100)), work)


def test_an_agent_that_cannot_be_started_beside_ends_the_work() -> None:
    def fail() -> Session:
        raise ConnectionLost("there is no other")

    with local_agent() as session:
        session.another = fail
        with AgentPool(session, 2) as pool, pytest.raises(ConnectionLost, match="there is no other"):
            pool.each(iter(range(100)), lambda _session, _number: time.sleep(0.05))
