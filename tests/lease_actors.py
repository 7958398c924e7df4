"""Checkers, command APIs and faults in the world of tests/lease_world.py, around the real Lessee and the real Hearing."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final

from schemas.checker_status import Floor, Pulse, Said
from services.auth_checker.lease import Granted, Lease, Lessee, Moment
from services.command_api.effect import Hearing, Target
from tests.lease_world import Clock, Process, Steps, World

PARTITIONS: Final = 2
STATUS: Final = PARTITIONS
"""The number of the status topic; those before it are the partitions of the ledger, whose records are revoked keys."""


class Rules:
    """How the rules are used; a broken variant overrides one method."""

    def lessee(self, checker: str, incarnation: str, boot_id: str, m_ms: int, floors: dict[int, int]) -> Lessee:
        return Lessee(checker, incarnation, boot_id, m_ms, floors)

    def hearing(self, api: str, m_ms: int, began_ns: int) -> Hearing:
        return Hearing(api, m_ms, began_ns)

    def acknowledged(self, lessee: Lessee, pulse: Pulse) -> Granted | None:
        """That a pulse was acknowledged is no reason to believe anything."""
        return None

    def read(self, lessee: Lessee, said: Said, now: Moment) -> Granted | None:
        return lessee.read(said)

    def may_write(self, granted: Granted, positions: list[int]) -> bool:
        """Whether the store holds, in the transaction that writes the lease, what the pulse said it holds."""
        return all(positions[partition] >= position for partition, position in granted.positions.items())


@dataclass
class Store:
    """A checker's tables. Each step of a thread is one transaction."""

    positions: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    revoked: set[int] = field(default_factory=set)
    place: int = 0
    floors: dict[int, int] = field(default_factory=dict)
    lease: Lease | None = None


class Checker:
    """One host: its clock, its store, its workers, and a follower that is restarted when it dies."""

    def __init__(self, scene: "Scene", name: str) -> None:
        self.scene, self.name = scene, name
        self.store, self.clock = Store(), Clock(scene)
        self.saved = Store()
        self.starts = 0
        self.follower = Follower(self)
        for _ in range(2):
            worker = Process(scene)
            worker.run(self._work(worker))

    def restart(self) -> None:
        """The follower dies; the next one finds the store, an older copy of it, or none, and perhaps another boot."""
        self.follower.alive = False
        found = self.scene.random.choice(("store", "store", "copy", "nothing", "reboot"))
        if found == "copy":
            self.store, self.saved = self.saved, deepcopy(self.store)
            # A copy never holds a lease: that vouches for the store it was written in.
            self.saved.lease = None
        elif found == "nothing":
            self.store = Store()
        elif found == "reboot":
            self.clock.reboot()
        self.follower = Follower(self)

    def rebuild(self) -> None:
        """The follower found that the log was cut: it empties the tables and the lease, and folds from the start."""
        self.store.positions, self.store.revoked, self.store.lease = [0] * PARTITIONS, set(), None

    def _work(self, worker: Process) -> Steps:
        while True:
            yield worker.random.uniform(0, self.scene.m_s / 10)
            yield from self.validate(self.scene.some_key())

    def validate(self, key: int) -> Steps:
        """Look up, then compare the clock, then answer."""
        began, store = self.scene.now, self.store
        lease, good = store.lease, key not in store.revoked
        yield 0.0001
        valid = good and lease is not None and lease.covers(self.clock.boot_id, self.clock.moment())
        self.scene.answered(key, began, valid=valid)


class Follower(Process):
    """One incarnation: applies the ledger, reads the status topic, pulses."""

    def __init__(self, checker: Checker) -> None:
        super().__init__(checker.scene)
        checker.starts += 1
        self._checker, self._scene, self._rules = checker, checker.scene, checker.scene.rules
        self._incarnation = f"{checker.name}-{id(checker)}-{checker.starts}"
        self.run(self._begin(), self.random.uniform(0, checker.scene.m_s / 2))

    def _begin(self) -> Steps:
        self._store = self._checker.store
        self._store.lease = None
        yield 0.001
        boot_id, floors = self._checker.clock.boot_id, self._store.floors
        self._lessee = self._rules.lessee(self._checker.name, self._incarnation, boot_id, self.world.m_ms, floors)
        self.run(self._listen())
        ends = [view.end() for view in self.views[:PARTITIONS]]
        for partition in range(PARTITIONS):
            self.run(self._apply(partition))
        while any(self._store.positions[partition] < end for partition, end in enumerate(ends)):
            yield self._scene.poll_s
        while True:
            self.run(self._pulse())
            yield self._scene.pulse_s

    def _apply(self, partition: int) -> Steps:
        while True:
            start = self._store.positions[partition]
            keys = self.views[partition].some(start)
            yield self.world.delay_s()
            if self._store.positions[partition] == start and keys:
                self._store.revoked.update(keys)
                self._store.positions[partition] += len(keys)
                self.run(self._pulse())
            yield self.random.uniform(0, self._scene.poll_s)

    def _pulse(self) -> Steps:
        t0 = self._checker.clock.moment()
        yield 0.0001
        pulse = self._lessee.begin(t0, dict(enumerate(self._store.positions)))
        yield 0.0001
        acknowledged = yield from self.append(STATUS, pulse)
        if acknowledged is not None:
            self._write(self._rules.acknowledged(self._lessee, pulse))

    def _listen(self) -> Steps:
        place = self._store.place
        while True:
            records = self.views[STATUS].some(place)
            yield self.world.delay_s()
            for said in records:
                place += 1
                granted = self._rules.read(self._lessee, said, self._checker.clock.moment())
                if granted:
                    yield 0.0001
                    self._write(granted)
            self._store.place, self._store.floors = place, dict(self._lessee.floors)
            yield self.random.uniform(0, self._scene.poll_s)

    def _write(self, granted: Granted | None) -> None:
        if granted and self._rules.may_write(granted, self._store.positions):
            self._store.lease = granted.lease


class CommandApi(Process):
    """Reads the status topic from its end, and revokes one key after the other in each of two threads."""

    def __init__(self, scene: "Scene", name: str) -> None:
        super().__init__(scene)
        self._scene, self._name, self._clock = scene, name, Clock(scene)
        self._offsets: dict[int, int] = {}
        self._number = 0
        self.run(self._listen(), self.random.uniform(0, scene.m_s))

    def _listen(self) -> Steps:
        yield self.world.delay_s()
        place = self.views[STATUS].end()
        yield self.world.delay_s()
        self._hearing = self._scene.rules.hearing(self._name, self.world.m_ms, self._clock.boot_ns())
        for _ in range(2):
            self.run(self._revoke())
        while True:
            records = self.views[STATUS].some(place)
            yield self.world.delay_s()
            now_ns, place = self._clock.boot_ns(), place + len(records)
            for said in records:
                self._hearing.read(said, now_ns)
            yield self.random.uniform(0, self._scene.poll_s)

    def _revoke(self) -> Steps:
        while True:
            yield self.random.uniform(0, self._scene.m_s / 2)
            key = self._scene.next_key()
            partition = key % PARTITIONS
            offset = yield from self.append(partition, key)
            if offset is None:  # The outcome is unknown, and the caller is told so.
                continue
            self._offsets[partition] = max(offset, self._offsets.get(partition, offset))
            number, acknowledged = 0, None
            while acknowledged is None:
                self._number += 1
                number = self._number
                acknowledged = yield from self.append(STATUS, Floor(self._name, number, dict(self._offsets)))
            acknowledged_ns = self._clock.boot_ns()
            target = Target(partition, offset)
            while not self._hearing.is_effective(target, number, acknowledged_ns, self._clock.boot_ns()):
                yield self._scene.poll_s / 2
            self._scene.became_effective(key)


class Scene(World):
    """A world with its actors; `violations` is what must stay 0."""

    def __init__(self, seed: int, max_staleness_ms: int, rules: Rules) -> None:
        super().__init__(seed, max_staleness_ms, PARTITIONS + 1)
        self.rules = rules
        self.poll_s, self.pulse_s = self.m_s / 50, self.m_s / self.random.choice((8, 12))
        self.validations = self.valid = self.revokes = self.violations = 0
        self._effective: dict[int, float] = {}
        names = self.random.choice((["a"], ["a", "a"], ["a", "b"], ["a", "a", "b"]))
        self.checkers = [Checker(self, name) for name in names]
        self.apis = [CommandApi(self, f"api-{number}") for number in range(self.random.choice((1, 2)))]
        Process(self).run(self._faults())

    @property
    def effective(self) -> int:
        return len(self._effective)

    def next_key(self) -> int:
        self.revokes += 1
        return self.revokes

    def some_key(self) -> int:
        """One that was revoked lately, or is next to be."""
        return max(1, self.revokes + 1 - self.random.randrange(6))

    def became_effective(self, key: int) -> None:
        """A revoke answers effective: from now on every checker is asked about that key, often."""
        self._effective[key] = self.now
        for checker in self.checkers:
            for _ in range(3):
                Process(self).run(checker.validate(key), self.random.uniform(0.000001, self.m_s))

    def answered(self, key: int, began: float, *, valid: bool) -> None:
        self.validations += 1
        self.valid += valid
        self.violations += valid and began > self._effective.get(key, began)

    def _faults(self) -> Steps:
        every_s = self.m_s * self.random.choice((0.3, 1, 3, 1000))
        while True:
            yield self.random.expovariate(1 / every_s)
            for_s, checker = self.random.uniform(0, 2.5 * self.m_s), self.random.choice(self.checkers)
            process = self.random.choice([checker.follower, checker.follower, *self.apis])
            fault = self.random.choice((*["freeze"] * 2, *["stale"] * 3, "restart", "api", "wall", "rebuild"))
            if fault == "freeze":
                process.frozen_until = self.now + for_s
            elif fault == "stale":
                for view in self.random.sample(process.views, self.random.randint(1, len(process.views))):
                    view.be_stale(for_s)
            elif fault == "restart":
                checker.saved = deepcopy(checker.store) if self.random.random() < 0.3 else checker.saved
                checker.restart()
            elif fault == "api":
                number = self.random.randrange(len(self.apis))
                self.apis[number].alive = False
                self.apis[number] = CommandApi(self, f"api-{number}-{self.now}")
            elif fault == "wall":
                checker.clock.set_wall(self.random.uniform(-3600, 3600))
            else:
                checker.rebuild()


def play(seed: int, max_staleness_ms: int, rules: Rules) -> Scene:
    """A scene after twelve times M."""
    scene = Scene(seed, max_staleness_ms, rules)
    scene.run_until(12 * scene.m_s)
    return scene
