"""A headless Chromium, driven over its debugging pipe with the standard library alone."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --remote-debugging-pipe"
)
AS_3_AND_4 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"


class Browser:
    """One tab. ``requests`` are the addresses it requested, ``errors`` what scripts threw or logged as errors."""

    def __init__(self, profile, size=(1200, 900), scripts=True):
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "about:blank"]
        fds = (read_there, write_there)
        self.process = subprocess.Popen(
            [sys.executable, "-c", AS_3_AND_4, *map(str, fds), *command],
            pass_fds=fds,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self.incoming, self.outgoing = os.fdopen(read_here, "rb"), os.fdopen(write_here, "wb")
        self.rest, self.last, self.session = b"", 0, None
        self.requests, self.errors, self.events = [], [], []
        tab = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=tab["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        if not scripts:
            self.call("Emulation.setScriptExecutionDisabled", value=True)

    def call(self, method, **params):
        """Send a command and return its result; events that arrive in the meantime are kept."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        self.outgoing.write(json.dumps(message).encode() + b"\0")
        self.outgoing.flush()
        number = self.last
        while (reply := self._next()).get("id") != number:
            self._keep(reply)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    def _next(self):
        while b"\0" not in self.rest:
            part = os.read(self.incoming.fileno(), 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def _keep(self, event):
        method, params = event.get("method", ""), event.get("params", {})
        self.events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:200])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(json.dumps(params["args"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def open(self, path):
        """Open a file and return the seconds until it was loaded and responded."""
        begun = time.monotonic()
        for kept in (self.events, self.requests, self.errors):
            kept.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        while "Page.loadEventFired" not in self.events:
            self._keep(self._next())
        self.run("1")
        return time.monotonic() - begun

    def run(self, script):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:800])
        return answer["result"].get("value")

    def wait(self, condition, seconds=30):
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"after {seconds} s still not: {condition}; {self.errors}"
            time.sleep(0.1)

    def screenshot(self, path, **options):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(10)
        except (RuntimeError, subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        self.incoming.close()
        self.outgoing.close()
