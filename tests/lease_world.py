"""A small world in which the rules of leases and effects run: true time, clocks that differ, topics and their faults.

Discrete events, no real time: a thread is a generator that yields the seconds until its next step, and each step may be
followed by a pause. A process may be frozen whole, killed at any step, or be served by a deposed leader, which shows of
a topic what it was when the leader was deposed. Requests under way survive their sender.
"""

import heapq
from collections.abc import Callable, Generator
from random import Random
from typing import Any

from services.auth_checker.lease import Moment

Steps = Generator[float, None, Any]


class Clock:
    """The clocks of one host, up to 1 % fast or slow; `reboot` and `set_wall` are faults."""

    def __init__(self, world: "World") -> None:
        self._world, self._boots = world, 0
        self._rate = world.random.choice((0.99, 1.01, world.random.uniform(0.99, 1.01)))
        self._wall_s = 1.8e9
        self.reboot()

    def reboot(self) -> None:
        self._boots += 1
        self.boot_id = f"boot-{self._boots}"
        self._booted_at = self._world.now - self._world.random.uniform(0, 100)

    def set_wall(self, by_s: float) -> None:
        self._wall_s += by_s

    def boot_ns(self) -> int:
        return int((self._world.now - self._booted_at) * self._rate * 1e9)

    def moment(self) -> Moment:
        return Moment(self.boot_ns(), int((self._wall_s + self._world.now * self._rate) * 1000))


class View:
    """What one process sees of a topic."""

    def __init__(self, world: "World", records: list[Any]) -> None:
        self._world, self._records = world, records
        self._stale_until, self._stale_end = 0.0, 0

    def be_stale(self, for_s: float) -> None:
        """From now its leader is deposed and does not know."""
        self._stale_end = self.end()
        self._stale_until = self._world.now + for_s

    def end(self) -> int:
        return self._stale_end if self._world.now < self._stale_until else len(self._records)

    def some(self, start: int) -> list[Any]:
        """Records from `start`, now and then not all that are there."""
        return self._records[start : min(self.end(), start + self._world.random.choice((1, 5, 50, 50)))]


class Process:
    """Threads that are frozen and killed together, and their views of the topics."""

    def __init__(self, world: "World") -> None:
        self.world, self.random = world, world.random
        self.alive, self.frozen_until = True, 0.0
        self.views = [View(world, records) for records in world.topics]

    def run(self, steps: Steps, after_s: float = 0.0) -> None:
        """Start a thread."""
        self.world.at(self.world.now + after_s, lambda: self._step(steps))

    def _step(self, steps: Steps) -> None:
        world = self.world
        if not self.alive:
            return
        if self.frozen_until > world.now:
            # After thawing any of its threads may be the first to go on.
            world.at(self.frozen_until + self.random.uniform(0, 0.1), lambda: self._step(steps))
            return
        try:
            wait_s = next(steps)
        except StopIteration:
            return
        if self.random.random() < world.pause_chance:
            wait_s += self.random.expovariate(2 / world.m_s)
        world.at(world.now + wait_s, lambda: self._step(steps))

    def append(self, topic: int, record: Any) -> Generator[float, None, int | None]:
        """Send a record; gives its offset, or None when that stays unknown: then it may be in the topic, or come late."""
        world, records, offsets = self.world, self.world.topics[topic], list[int]()

        def arrive() -> None:
            offsets.append(len(records))
            records.append(record)

        request_s, answer_s = world.delay_s(), world.delay_s()
        if self.random.random() > world.loss_chance:
            world.at(world.now + request_s, arrive)
        if self.random.random() < world.loss_chance:  # A retry of the producer: a copy, some time later.
            world.at(world.now + request_s + self.random.uniform(0, 2 * world.m_s), arrive)
        yield min(request_s + answer_s, world.m_s)
        return offsets[0] if offsets else None


class World:
    """True time in seconds, the topics, and how much goes wrong: drawn anew for each seed, from calm to wild."""

    def __init__(self, seed: int, max_staleness_ms: int, topics: int) -> None:
        self.random, self.now = Random(seed), 0.0
        self.m_ms, self.m_s = max_staleness_ms, max_staleness_ms / 1000
        self.topics: list[list[Any]] = [[] for _ in range(topics)]
        self.pause_chance = self.random.choice((0.0, 0.001, 0.01))
        self.loss_chance = self.random.choice((0.0, 0.02, 0.1))
        self._slow_chance = self.random.choice((0.0, 0.02, 0.1))
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._entered = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._entered += 1
        heapq.heappush(self._due, (when, self._entered, what))

    def delay_s(self) -> float:
        """The way of a message: milliseconds, at times as long as seconds."""
        if self.random.random() < self._slow_chance:
            return self.random.uniform(0, self.m_s)
        return self.random.uniform(0.001, 0.01)

    def run_until(self, end: float) -> None:
        while self._due and self._due[0][0] < end:
            self.now, _, what = heapq.heappop(self._due)
            what()
