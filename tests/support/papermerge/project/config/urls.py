# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of Papermerge; rows of documents hold addresses made from these names."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("accounts/", include("allauth.urls")),
    path("admin/", include("papermerge.contrib.admin.urls")),
    path("", include("papermerge.core.urls")),
]
