"""Which ports are free, and who has the one that is not."""

import socket
from pathlib import Path

_LISTEN = "0A"  # The state TCP_LISTEN as /proc/net/tcp writes it.


def free_ports(count: int = 1) -> list[int]:
    """`count` different ports that nobody listens on at this moment on 127.0.0.1."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_taken(port: int) -> bool:
    """Whether binding 127.0.0.1:`port` fails now."""
    with socket.socket() as probe:
        # Without this a port whose last connections are in TIME_WAIT would look taken after every restart.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def holder(port: int, proc: Path = Path("/proc")) -> str:
    """Who listens on `port`, such as "pid 123 (java -cp …)"; "another process" where the system does not tell."""
    inodes = _listening_inodes(port, proc)
    for descriptor in proc.glob("[0-9]*/fd/*"):
        try:
            target = str(descriptor.readlink())
        except OSError:  # The process ended, or belongs to someone else: it stays unnamed.
            continue
        if target in inodes:
            process = descriptor.parent.parent
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            return f"pid {process.name} ({words[:100]})"
    return "another process"


def _listening_inodes(port: int, proc: Path) -> set[str]:
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        if not (proc / table).exists():
            continue
        for line in (proc / table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{rest[5]}]")
    return inodes
