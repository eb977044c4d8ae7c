# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What the modules of this collection can do, for the table of attributes in their documentation."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description:
      - Is a member of these action groups, so that C(module_defaults) can set options for all of them at once.
    support: full
    membership:
      - papermerge.backup.all
  check_mode:
    description: Says in check mode what would be done, and changes nothing.
  diff_mode:
    description: Returns in diff mode what has changed.
    support: none
  platform:
    description: Operating systems of the hosts.
    support: full
    platforms: posix
"""

    ACTION = r"""
options: {}
attributes:
  action:
    description: Runs on the controller and reaches the host through the connection of its own.
    support: full
  async:
    description: Can be used with the C(async) keyword.
    support: none
    details: A lock, a stream or a transaction must not outlive its task.
"""

    CONTROLLER = r"""
options: {}
attributes:
  action:
    description: Runs on the controller.
    support: full
    details: Contacts no host, so that it also works for hosts that are gone.
  async:
    description: Can be used with the C(async) keyword.
    support: none
"""

    READS_ONLY = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: Changes nothing in any mode.
"""
