"""Stands for a service in tests of the launcher: ready at once, writes first-start.json if told to, stops on SIGTERM."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name that the library calls it by
        print("asked", args[0], flush=True)


def stop(*_: object) -> None:
    print("stopped in order", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
name = sys.argv[1]
if os.environ.get("STAND_IN_FAILS") == name:
    sys.exit(f"{name}: the stand-in was told to fail")
if "KEYLEDGER_FIRST_START" in os.environ:
    person = {"user_id": "u", "email": "maya@demo.example", "password": "p"}
    facts = {"operator": person, "demo": {"org_id": "demo", "admin": person, "member": person}}
    Path(os.environ["KEYLEDGER_FIRST_START"]).write_text(json.dumps(facts))
HTTPServer(("127.0.0.1", int(os.environ["KEYLEDGER_PORT"])), Ready).serve_forever()
