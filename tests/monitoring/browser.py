"""A headless Chromium, told what to do over its debugging protocol (Ray brings aiohttp along, which speaks it)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from monitoring.servers import get, process, wait_until

SIZE = "1500,1800"
LARGEST_ANSWER = 1 << 28


class Page:
    """One page of a browser; every call is a conversation of its own."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def _tell(self, *commands: tuple[str, dict[str, Any]]) -> Any:
        """Sends commands, and returns the last one's answer."""
        return asyncio.run(self._talk(commands))

    async def _talk(self, commands: tuple[tuple[str, dict[str, Any]], ...]) -> Any:
        result: Any = None
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._socket, max_msg_size=LARGEST_ANSWER) as connection,
        ):
            for number, (method, parameters) in zip(count(), commands, strict=False):
                await connection.send_json({"id": number, "method": method, "params": parameters})
                answer = await connection.receive_json()
                while answer.get("id") != number:  # events
                    answer = await connection.receive_json()
                assert "error" not in answer, answer
                result = answer["result"]
        return result

    def open(self, url: str) -> None:
        self._tell(("Page.navigate", {"url": url}))
        wait_until(lambda: self.says("[location.href, document.readyState]") == [url, "complete"], url)

    def says(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self._tell(("Runtime.evaluate", {"expression": script, "returnByValue": True}))
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def shows(self, text: str) -> None:
        """Waits until the page's visible text has this in it."""
        wait_until(lambda: self.says(f"document.body.innerText.includes({json.dumps(text)})"), f"{text!r} on the page")

    def click(self, text: str) -> None:
        """Clicks on the smallest element that has this text."""
        self.shows(text)
        named = f"[...document.querySelectorAll('body *')].filter(e => e.innerText === {json.dumps(text)}).at(-1)"
        self.says(f"{named}.click()")

    def screenshot(self, path: Path) -> Path:
        picture = self._tell(("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}))
        path.write_bytes(base64.b64decode(picture["data"]))
        return path


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    folder.mkdir(exist_ok=True)
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", f"--window-size={SIZE}", "about:blank"]
    environment = {**os.environ, "HOME": str(folder)}
    noted = folder / "profile" / "DevToolsActivePort"
    with process(command, folder / "chromium.log", environment):
        port = wait_until(lambda: noted.read_text().split()[0], "Chromium")
        pages = wait_until(lambda: json.loads(get(f"http://127.0.0.1:{port}/json/list")), "Chromium's page")
        yield Page(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))
