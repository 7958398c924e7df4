"""The hunter: is a key ever accepted after its revoke was answered `effective: true`? (DESIGN section 7)

Every checker is asked all the time about keys that are being revoked, were revoked, and are good. A violation is a
validation that began after the answer `effective: true` was received and said VALID.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random
from threading import Event, Lock, Thread
from typing import Any

from tests.fault.asking import NO_ANSWER, Asker, Prey, Said
from tests.fault.field import Command, Field
from tests.fault.organisation import FULL
from tests.waiting import eventually

PER_S = 330.0 if FULL else 120.0
"""Questions a second to each checker."""
AT_LEAST_PER_S = 300.0 if FULL else 0.0
RECOVER_S = 180.0
_HOT = 24
"""So many of the keys that were revoked last, or are being revoked, are asked about most."""
_BATCH = 100
_REVOKE_EVERY_S = 0.15


@dataclass(frozen=True)
class Span:
    """The time in which a key must not be accepted."""

    since: float
    until: float = inf


class Record:
    """What was sent, what was answered, and what was said about the keys meanwhile."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._touched: dict[str, float] = {}
        self._spans: dict[str, Span] = {}

    def touch(self, key_id: str) -> None:
        """A command that takes its rights away is about to be sent: until that is effective anything may be said."""
        self._touched.setdefault(key_id, time.monotonic())

    def forbid(self, key_id: str, since: float) -> None:
        """That command is effective: the answer was received at `since`."""
        self._spans.setdefault(key_id, Span(since))

    def permit(self, key_id: str, until: float) -> None:
        """A command that gives the rights back is about to be sent."""
        self._spans[key_id] = Span(self._spans[key_id].since, until)

    def violations(self) -> list[tuple[Said, float]]:
        """Each validation that said VALID in the time it must not, and how long after its beginning it was sent, in s.

        One that was not answered before the rights were given back may have seen that.
        """
        found = []
        for said in self.said:
            span = self._spans.get(said.key_id)
            if span is not None and said.code == "VALID" and span.since < said.began and said.ended < span.until:
                found.append((said, said.began - span.since))
        return found

    def false_refusals(self) -> list[Said]:
        """Each answer that refused a key which nobody had touched; STALE and no answer refuse nothing for good."""
        harmless = {"VALID", "STALE", NO_ANSWER, "not_ready"}
        return [one for one in self.said if one.code not in harmless and one.ended < self._touched.get(one.key_id, inf)]

    def last_valid(self, keys: Collection[str], before: float) -> float:
        """When the last question about one of these was sent that was answered VALID, up to `before`; -inf without any."""
        valid = (one.began for one in self.said if one.code == "VALID" and one.key_id in keys)
        return max((began for began in valid if began < before), default=-inf)


class Hunt:
    """Asks all checkers of a field, and revokes keys of it, while a fault is made and mended."""

    def __init__(self, field: Field, name: str, ports: Mapping[str, int], seed: str) -> None:
        self.name, self.field, self.record = name, field, Record()
        self.commands: list[Command] = []
        self._random, self._lock = Random(seed), Lock()
        self._hot: tuple[Prey, ...] = ()
        self._gone: list[Prey] = []
        self.askers = [Asker(checker, port, PER_S, self._choose, self._hear) for checker, port in ports.items()]
        self._stopping = Event()
        self._revoking: Thread | None = None
        self._failure: Exception | None = None
        self.recovered_ms: float | None = None

    def revoke(self, prey: Prey | None = None, *, at: int = 0) -> Command:
        """Revoke a key of the field, until the answer is `effective: true`."""
        prey = prey or self.field.take(1)[0]
        self.aim(prey)
        done = self.take_away([prey], "DELETE", f"/keys/{prey.key_id}", {}, at=at)
        with self._lock:
            self._gone.append(prey)
        return done

    def take_away(self, preys: Sequence[Prey], method: str, path: str, body: Any, *, at: int = 0) -> Command:
        """Send the command that takes the rights of these keys away, until the answer is `effective: true`."""
        for prey in preys:
            self.record.touch(prey.key_id)
        done = self.field.take_away(method, path, body, at)
        for prey in preys:
            self.record.forbid(prey.key_id, done.answered_at)
        with self._lock:
            self.commands.append(done)
        return done

    def aim(self, *prey: Prey) -> None:
        """Ask about these most from now on."""
        with self._lock:
            self._hot = (*self._hot, *prey)[-_HOT:]

    def keep_revoking(self) -> None:
        """Revoke one key after the other from now on, in a thread."""
        self._revoking = Thread(target=self._revoke_all_the_time, name="revokes", daemon=True)
        self._revoking.start()

    def start(self) -> None:
        """Ask, until every checker says VALID."""
        self._asked_from = time.monotonic()
        for asker in self.askers:
            asker.start()
        self.serves(time.monotonic())

    def serves(self, since: float) -> None:
        """Wait until every checker answered VALID to a question sent after `since`, and a revoke was effective."""
        waiting = {asker.checker for asker in self.askers}

        def all_valid() -> bool:
            for said in self._since(since):
                if said.code == "VALID":
                    waiting.discard(said.checker)
            return not waiting

        eventually(all_valid, RECOVER_S, f"every checker to say VALID; {waiting} did not")

    def mended(self) -> None:
        """The fault is over: wait until all serves again without help, and remember how long that took."""
        began = time.monotonic()
        self.serves(began)
        self.revoke()
        self.recovered_ms = (time.monotonic() - began) * 1000

    def sweep(self, preys: Sequence[Prey]) -> Counter[str]:
        """What all checkers say now about each of these, asked in batches and side by side."""
        with ThreadPoolExecutor(len(self.askers)) as pool:
            found = pool.map(partial(self._sweep, preys), range(len(self.askers)))
            return sum(found, Counter())

    def codes(self, checker: str, since: float, until: float = inf) -> Counter[str]:
        """The codes of this checker's answers to questions that were sent in this time (CLOCK_MONOTONIC)."""
        return Counter(one.code for one in self._since(since) if one.checker == checker and one.began < until)

    def stop(self) -> None:
        """Revoke and ask no more."""
        self._stopping.set()
        if self._revoking is not None:
            self._revoking.join(RECOVER_S)
        for asker in self.askers:
            asker.stop()
        self._asked_until = time.monotonic()

    def report(self) -> str:
        """One line about it all."""
        codes = Counter(one.code for one in self.record.said)
        recovered = "" if self.recovered_ms is None else f", ms to recover {self.recovered_ms:.0f}"
        return (
            f"{self.name}: revokes {len(self.commands)}, validations checked {len(self.record.said)} ({self.per_s:.0f}/s per"
            f" checker), violations {len(self.record.violations())}, STALE {codes['STALE']}{recovered};"
            f" effective_ms {spread([one.effective_ms for one in self.commands])};"
            f" answers {dict(codes)}; repeated because of {dict(sum((one.repeats for one in self.commands), Counter()))}"
        )

    def judge(self) -> None:
        """Nothing that must not be was seen."""
        if self._failure is not None:
            raise self._failure
        violations = self.record.violations()
        assert not violations, f"{len(violations)} violations; the first, and how many seconds late: {violations[0]}"
        refused = self.record.false_refusals()
        assert not refused, f"{len(refused)} refusals of keys that nobody had touched; the first: {refused[0]}"

    @property
    def per_s(self) -> float:
        """Answers a second of the checker in the middle: a fault may keep one of them from answering."""
        counts = Counter(one.checker for one in self.record.said)
        answered = sorted(counts[asker.checker] for asker in self.askers)
        return answered[len(answered) // 2] / (self._asked_until - self._asked_from)

    def _sweep(self, preys: Sequence[Prey], at: int) -> Counter[str]:
        codes, checker = Counter[str](), self.askers[at].checker
        for first in range(0, len(preys), _BATCH):
            some, began = preys[first : first + _BATCH], time.monotonic()
            items = [{"key": prey.text} for prey in some]
            answer = self.field.system.call("checker", "POST", "/v1/validations/batch", {"items": items}, at=at)
            assert answer.status == 200, answer
            ended = time.monotonic()
            for prey, item in zip(some, answer.json["items"], strict=True):
                codes[item["code"]] += 1
                self._hear(Said(checker, prey.key_id, began, ended, item["code"]))
        return codes

    def _since(self, since: float) -> Iterator[Said]:
        for number in range(len(self.record.said) - 1, -1, -1):
            said = self.record.said[number]
            if said.began > since:
                yield said
            elif said.ended < since:
                return

    def _revoke_all_the_time(self) -> None:
        try:
            number = 0
            while not self._stopping.wait(_REVOKE_EVERY_S):
                number += 1
                self.revoke(at=number)
        except Exception as error:  # noqa: BLE001 - it is raised where the hunt is judged.
            self._failure = error

    def _choose(self) -> Prey:
        # Two of three questions are where a violation would be; the others say that the checker still serves.
        chance = self._random.random()
        if chance < 0.6 and self._hot:
            return self._random.choice(self._hot)
        if chance < 0.7 and self._gone:
            return self._random.choice(self._gone)
        return self._random.choice(self.field.witnesses)

    def _hear(self, said: Said) -> None:
        self.record.said.append(said)


@contextmanager
def hunting(field: Field, name: str, ports: Mapping[str, int], tell: Callable[[str], None] = print) -> Iterator[Hunt]:
    """A hunt for the length of a `with`, told and judged at its end."""
    hunt = Hunt(field, name, ports, seed=name)
    hunt.start()
    try:
        yield hunt
    finally:
        hunt.stop()
        tell(f"\n{hunt.report()}")
    hunt.judge()
    assert hunt.per_s >= AT_LEAST_PER_S, f"only {hunt.per_s:.0f} validations a second of one checker"


def spread(values: list[float]) -> str:
    """p50, p99 and the greatest of some milliseconds."""
    if not values:
        return "none"
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
    return f"p50 {p50:.0f} p99 {p99:.0f} max {ordered[-1]:.0f}"
