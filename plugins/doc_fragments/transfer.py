# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How bytes move between host and controller."""

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
"""
