# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """On which machine an archive or a dump lies."""

    DOCUMENTATION = r"""
requirements:
  - The Python package C(zstandard), 0.22 or later, on the controller
  - The program C(zstd) on the host, to write or read there with O(location=host) what is compressed
options:
  location:
    description:
      - The machine on which the archive or dump lies. V(controller) moves it through the connection, V(host) leaves
        it on the host.
    type: str
    choices:
      - controller
      - host
    default: controller
"""
