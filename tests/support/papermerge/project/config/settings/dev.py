# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``manage.py`` uses unless DJANGO_SETTINGS_MODULE names something else, as in Papermerge's own project."""

from __future__ import annotations

from .base import *
