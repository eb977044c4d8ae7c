# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check of ./dev lint as one test, so that it counts in the one summary of ./dev test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import pytest

from tests.tools.checks import CHECKS, Outcome, Runner


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Outcome]]]:
    selected = {item.callspec.params["name"] for item in request.session.items if item.path == request.path}
    with Runner([name for name in CHECKS if name in selected]) as futures:
        yield futures


@pytest.mark.parametrize("name", CHECKS)
def test_check_passes(name: str, outcomes: Mapping[str, Future[Outcome]]) -> None:
    outcome = outcomes[name].result()
    if not outcome.passed:
        print(outcome.output)
        pytest.fail(f"./dev lint {name} fails; its output follows", pytrace=False)
