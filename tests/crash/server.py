"""The server under test as a process: started through `tests/causerie`, killed, stopped, checked."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# The one place that knows how the binary is started.
LAUNCHER = Path(__file__).parent.parent / "causerie"

READY_S_MAX = 30
STOP_S_MAX = 20


class Dropped(Exception):
    """The server went away before its whole answer was here."""


class Refused(Exception):
    """The server answered with something else than 200."""


class Connection:
    """One kept-alive connection of one user; not for use by two threads at once."""

    def __init__(self, port, token=None):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def call(self, method, path, body=None):
        """The status and the JSON of one answer; `Dropped` unless all of it came."""
        data = None if body is None else json.dumps(body)
        try:
            self.http.request(method, "/_matrix/client/v3" + path, data, self.headers)
            answer = self.http.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.http.close()
            raise Dropped(f"{method} {path}: {error!r}") from error

    def ask(self, method, path, body=None):
        """The JSON of an answer that must be a 200."""
        status, answer = self.call(method, path, body)
        if status != 200:
            raise Refused(f"{method} {path}: {status} {json.dumps(answer)}")
        return answer

    def close(self):
        """Closes the connection; a further call opens it again."""
        self.http.close()


class Server:
    """One data folder and the process, if any, that serves it."""

    def __init__(self, binary, data, settings):
        self.binary, self.settings = binary, settings
        self.data = Path(data)
        self.data.mkdir(parents=True)
        self.log = self.data.with_suffix(".log")
        self.process = None
        # The same port for every start, as after a crash in real life.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self):
        """Starts the server and waits until it answers; returns that time in milliseconds."""
        begun = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command("serve", self.port, self.data), stdout=log, stderr=log
            )
        while time.monotonic() - begun < READY_S_MAX:
            if self.process.poll() is not None:
                raise Dropped(f"the server ended by itself with {self.process.returncode}")
            probe = http.client.HTTPConnection("127.0.0.1", self.port, timeout=READY_S_MAX)
            try:
                probe.request("GET", "/_matrix/client/versions")
                if probe.getresponse().status == 200:
                    return (time.monotonic() - begun) * 1000
            except OSError:
                time.sleep(0.005)
            finally:
                probe.close()
        raise Dropped(f"the server is not ready after {READY_S_MAX} s")

    def kill(self):
        """SIGKILL, and nothing else."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self):
        """SIGTERM; returns what went wrong, if anything did."""
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"still there {STOP_S_MAX} s after SIGTERM"
        return None if status == 0 else f"exit code {status} after SIGTERM"

    def fsck(self, copied):
        """Runs `causerie fsck`, on a copy if asked; returns what it found, if anything.

        After a kill it gets a copy, so that what recovers the data is the next start and not it.
        """
        data = self.data
        if copied:
            data = self.data.with_suffix(".copy")
            shutil.copytree(self.data, data)
        try:
            run = subprocess.run(
                self._command("fsck", 0, data), capture_output=True, text=True, check=False
            )
        finally:
            if copied:
                shutil.rmtree(data)
        if run.returncode == 0:
            return None
        return f"fsck: exit code {run.returncode}: {(run.stdout + run.stderr).strip()[-2000:]}"

    def _command(self, command, port, data):
        return [LAUNCHER, command, self.binary, str(port), str(data), *self.settings]
