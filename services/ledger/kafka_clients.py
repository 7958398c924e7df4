"""Makes kafka-python's clients, so that one that cannot connect leaves nothing behind."""

from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from services.ledger.log import LogUnavailable


def connected(kind: Callable[..., Any], **config: Any) -> Any:
    """Make a client of this kind. Raises LogUnavailable.

    Their constructors raise when no broker answers, and leave a thread running and four files open: with a broker
    away for an hour there would soon be no more to be had.
    """
    made: list[Any] = []

    def net_client(**settings: Any) -> Any:
        made.append(KafkaNetClient(**settings))
        return made[-1]

    try:
        return kind(kafka_client=net_client, **config)
    except KafkaError as error:
        for client in made:
            client.close()
        raise LogUnavailable(repr(error)) from error
