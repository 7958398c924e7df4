"""Validations in batches, again and again, and what a checker answered to them; see `test_uses`."""

import http.client
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from threading import Event, Thread

from tests.fault.asking import Prey

_AGAIN_S = 0.05
_TIMEOUT_S = 20.0


@dataclass
class Asked:
    """What was asked of one checker between two of its stops, about keys of which nobody else asks.

    `answered` counts validations by key id and code, `unanswered` those by key id whose answer never came, and `ended`
    tells when each batch was answered (CLOCK_MONOTONIC, s) and how many validations were in it.
    """

    keys: Sequence[Prey]
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    ended: list[tuple[float, int]] = field(default_factory=list)

    def since(self, moment: float) -> int:
        """How many were answered after a moment."""
        return sum(count for ended, count in self.ended if ended >= moment)


class Client:
    """A thread that asks one checker for batches of `size`, `per_s` of them a second, over one connection.

    `asked` is what it is at; give it another one while the checker is down, and each answer is known to be of one life.
    """

    def __init__(self, port: int, size: int, per_s: float, asked: Asked) -> None:
        self._port, self._size, self._every_s = port, size, 1 / per_s
        self.asked, self.answered = asked, 0
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=f"asks {port}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the batch under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        asked, keys = self.asked, cycle(self.asked.keys)
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._every_s, time.monotonic())
            if asked is not self.asked:
                asked, keys = self.asked, cycle(self.asked.keys)
            batch = list(islice(keys, self._size))
            try:
                codes = _codes(connection, batch)
            except (OSError, http.client.HTTPException) as error:
                if not isinstance(error, ConnectionRefusedError):  # Then nobody heard the question.
                    asked.unanswered.update(prey.key_id for prey in batch)
                connection.close()
                self._stopping.wait(_AGAIN_S)
                continue
            asked.ended.append((time.monotonic(), len(batch)))
            asked.answered.update((prey.key_id, code) for prey, code in zip(batch, codes, strict=True))
            self.answered += len(batch)
        connection.close()


def _codes(connection: http.client.HTTPConnection, batch: Sequence[Prey]) -> list[str]:
    """Raises OSError and HTTPException when there was no answer."""
    body = json.dumps({"items": [{"key": prey.text} for prey in batch]})
    connection.request("POST", "/v1/validations/batch", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.HTTPStatus.OK:
        raise http.client.HTTPException(f"{response.status}: {answer[:200]!r}")
    return [item["code"] for item in json.loads(answer)["items"]]
