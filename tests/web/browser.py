"""A headless Chromium, driven through its remote debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--autoplay-policy=no-user-gesture-required"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--remote-debugging-pipe"),
)
# The browser reads commands from file descriptor 3 and answers on 4.
_START = """
import os, sys
for place in (0, 1):
    os.dup2(int(sys.argv[1 + place]), 100 + place)
for place in (0, 1):
    os.dup2(100 + place, 3 + place)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def serve(folder):
    """Serve a folder as ``python -m http.server`` does; yields its address."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def open_page(url, *, microphone=None, seconds=60.0):
    """Open a page in a browser of its own; ``microphone`` is a WAV file that is recorded once."""
    with ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        flags = [*_FLAGS, f"--user-data-dir={profile}"]
        if microphone is not None:
            flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
        page = Page(flags, deadline=time.monotonic() + seconds)
        stack.callback(page.close)
        page.open(url)
        yield page


class Page:
    """A page and its browser.

    Attributes:
        requests: Addresses that the page or its workers asked for.
        errors: Exceptions and errors on the console.
    """

    def __init__(self, flags, *, deadline):
        self.requests, self.errors = [], []
        self._deadline, self._number, self._buffer = deadline, 0, b""
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(read_there), str(write_there), CHROMIUM, *flags, "about:blank"],
            pass_fds=(read_there, write_there),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_there)
        os.close(write_there)
        self._in, self._out, self._session = read_here, write_here, None

    def open(self, url):
        """Go to an address; wait until it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def call(self, method, **params):
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            left = self._deadline - time.monotonic()
            assert left > 0, f"the browser took too long; errors: {self.errors}"
            if select.select([self._in], [], [], min(left, 1.0))[0]:
                received = os.read(self._in, 2**20)
                assert received, "the browser has ended"
                self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(message)
        self._note(message.get("method"), message.get("params"), message.get("sessionId"))
        return message

    def _note(self, method, params, session):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:2000])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"])[:2000])
        elif method == "Target.attachedToTarget" and session is not None:  # a worker
            for command in ("Network.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"):
                self._number += 1
                inner = {"id": self._number, "method": command, "sessionId": params["sessionId"]}
                os.write(self._out, json.dumps(inner).encode() + b"\0")

    def evaluate(self, expression):
        """The value of a JavaScript expression, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression):
        """Wait until a JavaScript expression is true."""
        while not self.evaluate(expression):
            time.sleep(0.05)

    def text(self, selector):
        """The text of an element."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def choose_file(self, path):
        """Choose a file in the page's only file field."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(path)])

    def click(self, selector):
        """Click at an element's centre with the mouse."""
        box = self.evaluate(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            "element.scrollIntoView(); const box = element.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def save_picture(self, path, *, width=1000, height=900, dark=False):
        """Save a picture of the page at a size, in light or dark colours."""
        phone = width < 500
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        """End the browser."""
        os.close(self._out)
        os.close(self._in)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
