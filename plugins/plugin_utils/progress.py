# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of long work, told to people: host, step, share, rate, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds of a step before anything is said, and between two lines.
INTERVAL = 10.0


def human_bytes(size: float) -> str:
    """Return a size in bytes as people read it, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """Return a duration as people read it, such as ``4.2 s`` or ``1:02:03``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Tells how far a step is, first after INTERVAL seconds and then every INTERVAL seconds.

    ``say`` takes a line. Steps count bytes, or files where ``unit`` says so.
    """

    def __init__(self, host: str, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._say = say
        self._clock = clock
        self.begin("connecting")

    def begin(self, step: str, total: int = 0, unit: str = "bytes") -> None:
        """Begin a step of ``total`` units; 0 when nobody knows."""
        self._step, self._total, self._unit = step, total, unit
        self._begun = self._told = self._clock()
        self._done = 0

    def advance(self, amount: int) -> None:
        """Tell that so much more is done."""
        self.update(self._done + amount)

    def update(self, done: int, total: int = 0) -> None:
        """Tell how much of the step is done, and of how much where that is known only now."""
        self._done = done
        self._total = total or self._total
        now = self._clock()
        if now - self._told >= INTERVAL:
            self._told = now
            self._say(self._line(now - self._begun))

    def still(self) -> None:
        """Tell that the step goes on, though nothing of it can be counted now."""
        self.update(self._done)

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds if seconds else 0.0
        if self._unit == "bytes":
            text = f"{human_bytes(self._done)}, {human_bytes(rate)}/s"
        else:
            text = f"{self._done:,} {self._unit}, {rate:,.0f}/s"
        if self._total and rate:
            share = min(100.0 * self._done / self._total, 100.0)
            left = max(self._total - self._done, 0) / rate
            return f"{self._host}: {self._step}: {share:.0f} %, {text}, {human_seconds(left)} left"
        return f"{self._host}: {self._step}: {text}"
