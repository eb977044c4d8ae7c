# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium, spoken to over a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0


class BrowserError(Exception):
    """The browser did not do what it was asked for."""


def without_browser() -> NoReturn:
    """End a test that needs a browser: in CI that is a failure, elsewhere a skip that says why."""
    text = f"no browser: none of {', '.join(PROGRAMS)} is on PATH (Debian: apt-get install chromium)"
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"{text}, and under CI there must be one")
    pytest.skip(text)


class Browser:
    """One browser with one page."""

    def __init__(self, process: subprocess.Popen[bytes], to_browser: int, from_browser: int) -> None:
        self._process = process
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.requests: list[str] = []
        """The URL of everything that the page has asked for since it was opened, itself included."""
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._call("Page.enable")
        self._call("Network.enable")

    @classmethod
    @contextlib.contextmanager
    def started(cls, profile: Path) -> Iterator[Browser]:
        """Start a browser with a profile of its own; ends the test where there is none."""
        program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
        if program is None:
            without_browser()
        there, to_browser = os.pipe()
        from_browser, back = os.pipe()
        # The protocol wants its ends at descriptors 3 and 4.
        words = f'exec 3<&{there} 4>&{back}; exec "$@"'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--remote-debugging-pipe", "--disable-dev-shm-usage", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", words, "bash", program, *options],
            pass_fds=[there, back],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile)},
        )
        os.close(there)
        os.close(back)
        try:
            yield cls(process, to_browser, from_browser)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_browser)
            os.close(from_browser)

    def show(self, url: str, width: int, height: int, *, dark: bool = False, media: str = "") -> None:
        """Open a page at a size, in a colour scheme, on a screen or as it is printed."""
        self.requests = []
        phone = width < 600
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        self._call("Page.navigate", {"url": url})
        end = time.monotonic() + SECONDS
        while self.evaluate("document.readyState + location.href") != f"complete{url}":
            if time.monotonic() > end:
                raise BrowserError(f"{url} was not loaded")

    def evaluate(self, script: str) -> Any:
        """Return the value of a script's expression."""
        answer = self._call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        if "exceptionDetails" in answer:
            raise BrowserError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        answer = self._call("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, path: Path) -> None:
        """Print the page."""
        path.write_bytes(base64.b64decode(self._call("Page.printToPDF", {"printBackground": False})["data"]))

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _writable, _broken = select.select([self._from], [], [], max(end - time.monotonic(), 0))
            piece = os.read(self._from, 1 << 20) if ready else b""
            if not piece:
                raise BrowserError(f"the browser said nothing (exit status {self._process.poll()})")
            self._buffer += piece
        text, _end, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message
