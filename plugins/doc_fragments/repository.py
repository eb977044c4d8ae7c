# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that name a repository of snapshots and instances in it."""

    DOCUMENTATION = r"""
requirements:
  - The Python package C(zstandard), 0.22 or later, on the controller
options:
  repository:
    description:
      - Directory on the controller that holds the snapshots. Files in it get mode C(0600), directories C(0700).
      - Snapshots are not encrypted.
    type: path
    default: ~/papermerge-backups
  instance:
    description:
      - Name of the instance in the repository. Letters, digits and the characters C(._@:-) are allowed, at most 200
        of them, and the first one is a letter, a digit or an underscore.
      - The default is the host's name in the inventory. Two instances on one host need two names.
    type: str
"""

    SEVERAL = r"""
requirements:
  - The Python package C(zstandard), 0.22 or later, on the controller
options:
  repository:
    description: Directories on the controller that hold snapshots.
    type: list
    elements: path
    default:
      - ~/papermerge-backups
  instance:
    description:
      - Name of an instance, to look at this one only.
      - The default is to look at all instances in the repositories.
    type: str
  excluded_instances:
    description: Names of instances to leave out when O(instance) is not set.
    type: list
    elements: str
    default: []
"""
