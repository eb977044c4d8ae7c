# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limit of what passes between controller and one host.

It is kept on the controller, where the streams of all agents of a run come together. An agent that sends faster is
held up by what lies between: the pipes and the connection fill, and its writes wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: A piece is what passes in this time, so that whoever waits for its turn waits no longer than some pieces.
PIECE_SECONDS = 0.1
#: More than this in a piece gains nothing.
LARGEST_PIECE = 1 << 20
#: Time that was not used is made up for this long: a disk that stutters shall not slow the whole run.
BURST_SECONDS = 1.0
#: Anything below is a forgotten unit.
LOWEST_RATE = 1024


class RateLimit:
    """``rate`` bytes a second for everybody who asks, on average and over all directions."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()
        #: The most that should be passed at a time.
        self.piece = max(1, min(LARGEST_PIECE, int(rate * PIECE_SECONDS)))

    def passed(self, count: int) -> None:
        """Tell that ``count`` bytes have passed; returns when more may."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - BURST_SECONDS) + count / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)
