"""The checker's app in a real server of its own process, over a story told to it: `python -m … PORT FOLDER`.

With TLS where the environment says so. `POST /-/stale` lets the lease end, `POST /-/fresh` begins another.
"""

import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from granian.constants import Interfaces
from granian.server import Server

from services.auth_checker.config import Config
from tests.unit.checker_site import lanes
from tests.unit.checker_story import BEGINNING, M_MS, Asking, created

SCOPED, OTHER_SCOPE, FROM_HERE, FROM_ELSEWHERE = range(1, 5)
"""The numbers of the keys that there are; the proxies want the scope `invoices:read`."""
NEEDED = "invoices:read"
_ENVIRONMENT = {  # What else the configuration wants; none of it is used here.
    "KEYLEDGER_STATE_DIR": "state",
    "KEYLEDGER_LEDGER_KEYS": "keys",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "CONSOLE_URL": "http://127.0.0.1:9",
}
CLIENT = "127.0.0.2"
"""From where the tests connect to the proxies, which are trusted and connect from 127.0.0.1."""


def load(folder: Path) -> Callable[..., Iterable[bytes]]:
    """The app with its story, in the worker process."""
    asking = Asking(folder / "index")
    asking.index.tell(
        "org",
        *BEGINNING,
        created(SCOPED, scopes=(NEEDED, "b")),
        created(OTHER_SCOPE, scopes=("b",)),
        created(FROM_HERE, scopes=(NEEDED,), cidrs=(f"{CLIENT}/32",)),
        created(FROM_ELSEWHERE, scopes=(NEEDED,), cidrs=("192.0.2.0/24",)),
    )
    app, _ = lanes(asking, folder, None, [ip_network("127.0.0.1")])

    def told(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/-/stale":
                asking.index.clock.advance(M_MS)
            case "/-/fresh":
                asking.index.catch_up()
            case _:
                return app(environ, start_response)
        start_response("200 OK", [("Content-Length", "0")])
        return []

    return told


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    tls = Config.from_env({**_ENVIRONMENT, **os.environ}).tls
    server = Server(
        "checker",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=4,
        **(tls.options() if tls else {}),
    )
    server.serve(target_loader=functools.partial(load, folder), wrap_loader=False)
