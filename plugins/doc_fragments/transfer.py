# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How bytes move between host and controller, and how much of the host that may take."""

    DOCUMENTATION = r"""
requirements:
  - Python 3.8 or later with its standard library, C(sqlite3) included, on the host
notes:
  - Nothing is installed on the host and, when streamed, no file is written to it for the transfer. Data is compressed
    on the host when it has the C(zstd) program, otherwise on the controller.
  - The user on the host, after become, must be able to read (for a restore, to write) the media directory and the
    database. Owners of restored files are kept only when this user is V(root).
  - Steps that take longer than 10 seconds report their progress.
options:
  transfer:
    description:
      - How data moves between host and controller.
      - V(streamed) runs a program on the host that sends or receives everything through the connection, without files
        in between. It works with the connections C(ssh) and C(local), and without become or with the become methods
        C(sudo) and C(doas), the latter without a password.
      - V(staged) moves data through files in a private directory on the host, each of bounded size, with the
        connection plugin's own file transfer. It works with every connection that can transfer files.
      - V(auto) streams where that works and stages elsewhere.
    type: str
    choices:
      - auto
      - streamed
      - staged
    default: auto
  nice:
    description:
      - Niceness of everything that runs on the host for this task, the programs that dump and compress included, from
        V(0) to V(19). A higher one that the login has already is kept.
      - A database server and what runs inside a container are processes of their own and are not concerned.
    type: int
    default: 0
  io_class:
    description:
      - I/O scheduling class of the same processes. V(idle) reads and writes only when nobody else does, V(best-effort)
        is everybody's class and gives way within it by O(io_level), V(none) leaves it as it is.
      - It needs C(ionice) on the host (Debian's C(util-linux)), and counts only where the scheduler of the disk heeds
        it, as C(bfq) and C(mq-deadline) do. Where the host refuses it the task fails before it has done anything.
    type: str
    choices:
      - none
      - best-effort
      - idle
    default: none
  io_level:
    description:
      - Level within O(io_class=best-effort), from V(0) (first) to V(7) (last). Without effect for other classes.
    type: int
    default: 7
  rate_limit:
    description:
      - The most bytes a second that pass between this host and the controller, both directions together, with an
        optional unit such as V(20M) for 20 MiB. V(0) is no limit, as is leaving it out.
      - It holds on average. What the pipes and the connection hold, some megabytes at most, may leave the host faster.
        Hosts that are worked on at the same time have a limit each.
      - It cannot be kept where data is staged, and the task then fails before it has done anything.
    type: bytes
"""
