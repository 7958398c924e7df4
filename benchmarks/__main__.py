"""`python -m benchmarks [NAME…] [--scale 0.1]`: run benchmarks, print one table, keep the figures in var/bench."""

import argparse
import sys
import time

from benchmarks import (
    append,
    bundles,
    checker,
    commands,
    measure,
    pages,
    peer_eventsourcing,
    projection,
    rebuild,
    scale,
    usage,
)

BENCHMARKS = {
    "append": append.run,
    "commands": commands.run,
    "checker": checker.run,
    "scale": scale.run,
    "projection": projection.run,
    "rebuild": rebuild.run,
    "usage": usage.run,
    "pages": pages.run,
    "bundles": bundles.run,
    "peer_eventsourcing": peer_eventsourcing.run,
}


def main() -> int:
    """Run what was named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size and duration; less than 1 shows only that it runs"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown or arguments.scale <= 0:
        parser.error(f"no such benchmark: {', '.join(unknown)}" if unknown else "--scale must be above 0")
    results = {}
    for name in arguments.names or BENCHMARKS:
        print(f"{name} …", flush=True)
        began = time.monotonic()
        results[name] = BENCHMARKS[name](arguments.scale)
        print(f"  {time.monotonic() - began:.0f} s, kept in {measure.write(name, results[name])}", flush=True)
    print(f"\n{measure.table(results)}\n\n{measure.machine()}\n{measure.versions()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
