"""`python -m services.embedded` with stand-ins for the services; Kafka and PostgreSQL are what the environment says."""

import sys

from services.embedded import __main__ as launcher


def stand_in(service: str) -> list[str]:
    return [sys.executable, "-m", "tests.integration.stand_in_service", service]


sys.exit(launcher.main(stand_in))
