# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that use an instance while it is backed up, what they say they did, and what that excuses in a snapshot."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Papermerge commits one change in several steps, and clocks are read before or after what they are read for.
SLACK_SECONDS = 0.5
_WAIT_SECONDS = 120.0

Operation = dict[str, Any]
"""{"began", "time" (its end; both Unix), "operation", "document", …}"""


class WriterError(Exception):
    """A writer does not do what it should; the message holds what it wrote to its standard error."""


class Writer:
    """A background process that keeps changing an instance; ``pid`` is its process id."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self._result: dict[str, Any] | None = None
        self._asked = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def operations(self) -> list[Operation]:
        """What ended so far, oldest first."""
        return [
            json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n")
        ]

    def ask_to_stop(self) -> None:
        """Let it end by itself, after what it is doing."""
        # A second signal would meet a Python that is about to end and no longer handles it.
        if not self._asked and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._asked = True

    def stop(self) -> dict[str, Any]:
        """Let it finish what it is doing and end: {"operations": {name: count}, …}.

        Raises WriterError when it had ended already or ends with an error.
        """
        self.ask_to_stop()
        if self._result is None:
            output, errors = self._process.communicate(timeout=60)
            if self._process.returncode != 0:
                raise WriterError(f"the writer ended with exit code {self._process.returncode}\n{errors}")
            self._result = json.loads(output.splitlines()[-1])
        return self._result

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        self._process.kill()
        self._process.communicate()
        self._result = {"operations": {}}


@contextlib.contextmanager
def running_writer(
    command: Callable[[Path], Sequence[str]], directory: Path, environment: Mapping[str, str]
) -> Iterator[Writer]:
    """Run a writer until the block ends. ``command`` takes the file that it is to log to.

    It prints "ready", writes a line a finished operation, and ends with its counts as JSON after SIGTERM. Raises
    WriterError when the process cannot start, dies meanwhile or ends with an error.
    """
    with tempfile.TemporaryDirectory(prefix="papermerge-writer-") as scratch:
        log = Path(scratch) / "operations.jsonl"
        log.touch()
        process = subprocess.Popen(
            command(log), cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        writer = Writer(process, log)
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise WriterError(f"the writer did not start\n{process.communicate()[1]}")
            yield writer
            writer.stop()
        finally:
            if process.poll() is None:
                writer.kill()


class Writers:
    """Several writers of one instance."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers

    def operations(self) -> list[Operation]:
        """What all of them finished so far, in the order of the ends."""
        found = [operation for writer in self._writers for operation in writer.operations()]
        return sorted(found, key=lambda operation: float(operation["time"]))

    def wait_for(self, more: int) -> None:
        """Wait until each of them has finished so many things more."""
        wanted = [(writer, len(writer.operations()) + more) for writer in self._writers]
        deadline = time.monotonic() + _WAIT_SECONDS
        for writer, count in wanted:
            while len(writer.operations()) < count:
                if time.monotonic() > deadline:
                    raise WriterError(f"a writer did not do {more} things in {_WAIT_SECONDS:g} s")
                time.sleep(0.02)

    def stop(self) -> None:
        """Let all of them end, and wait for that. Raises WriterError."""
        for writer in self._writers:
            writer.ask_to_stop()
        for writer in self._writers:
            writer.stop()


def between(operations: list[Operation], begin: float, end: float) -> Counter[str]:
    """Count by name what was finished between two moments."""
    return Counter(entry["operation"] for entry in operations if begin <= entry["time"] <= end)


def under_way(operations: list[Operation], moment: float) -> tuple[str, ...]:
    """The documents that somebody was changing at a moment, or just before or after."""
    found = [entry for entry in operations if entry["began"] - SLACK_SECONDS <= moment <= entry["time"] + SLACK_SECONDS]
    return tuple(f"document {entry['document']} " for entry in found)


def deleted_after(operations: list[Operation], moment: float) -> tuple[str, ...]:
    """The documents that were deleted after a moment, or just before."""
    found = [entry for entry in operations if entry["operation"] == "delete" and entry["time"] > moment - SLACK_SECONDS]
    return tuple(f"document {entry['document']} " for entry in found)
