"""Given the events of a ledger, when a key is asked about, then the code is the one of DESIGN section 6."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import decoder, events, key_text
from schemas.times import to_text
from schemas.topics import LIFECYCLE, partition_of
from schemas.validation import Code
from services.auth_checker.bodies import Answer, Asked
from services.auth_checker.check import Found, Use, decide, look_up
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.key_index import NOWHERE, Key, Org, User
from services.ledger.chain import Head
from services.ledger.log import LogWasCut, Message
from tests.unit.checker_story import (
    ANN,
    BEGINNING,
    ENABLED,
    M_MS,
    NOW_MS,
    REGISTERED,
    Asking,
    asking,
    created,
    key_id,
    key_of,
)

__all__ = ["asking"]  # A fixture, asked for by its name.
LATER = to_text(NOW_MS + 60_000)
REVOKED = events.KeyRevoked(key_id=key_id(), reason="user_request")
DISABLED = events.OrgKeysDisabled()
OWNER_DISABLED = events.UserDisabled(user_id="ann")
ALL_WRONG = (created(expires_at=to_text(NOW_MS), cidrs=("192.0.2.0/24",), scopes=()), OWNER_DISABLED, DISABLED, REVOKED)


@pytest.mark.parametrize(
    ("given_events", "asked", "then"),
    [
        ([created()], {}, "VALID"),
        ([created(), events.KeyRenamed(key_id=key_id(), name="other")], {}, "VALID"),
        ([created(expires_at=LATER)], {}, "VALID"),
        ([created(), OWNER_DISABLED, events.UserEnabled(user_id="ann")], {}, "VALID"),
        ([created(), DISABLED, ENABLED], {}, "VALID"),
        ([created(), events.UserRoleChanged(user_id="ann", role="member")], {}, "VALID"),
        ([created(), events.LedgerResumed(offsets=(3,), reason="looked at")], {}, "VALID"),
        ([created(scopes=("a", "b"))], {"scopes": ["b", "a"]}, "VALID"),
        ([created(scopes=None)], {"scopes": ["anything"]}, "VALID"),
        ([created(scopes=())], {"scopes": []}, "VALID"),
        ([created(cidrs=("192.0.2.0/24",))], {"ip": "192.0.2.9"}, "VALID"),
        ([created(cidrs=("192.0.2.0/24",))], {"ip": "::ffff:192.0.2.9"}, "VALID"),
        ([created(cidrs=("2001:db8::/32", "192.0.2.0/24"))], {"ip": "2001:db8::1"}, "VALID"),
        ([], {}, "NOT_FOUND"),
        ([created(2)], {}, "NOT_FOUND"),
        ([created(), REVOKED], {}, "REVOKED"),
        ([created(expires_at=to_text(NOW_MS))], {}, "EXPIRED"),
        ([created(), DISABLED], {}, "ORG_KEYS_DISABLED"),
        ([created(), OWNER_DISABLED], {}, "OWNER_DISABLED"),
        ([created(), events.PersonErased(user_id="ann")], {}, "OWNER_DISABLED"),
        ([created(cidrs=("192.0.2.0/24",))], {}, "IP_NOT_ALLOWED"),
        ([created(cidrs=("192.0.2.0/24",))], {"ip": "192.0.3.1"}, "IP_NOT_ALLOWED"),
        ([created(cidrs=("192.0.2.0/24",))], {"ip": "no address"}, "IP_NOT_ALLOWED"),
        ([created(cidrs=("192.0.2.0/24",))], {"ip": "2001:db8::1"}, "IP_NOT_ALLOWED"),
        ([created(cidrs=())], {"ip": "192.0.2.9"}, "IP_NOT_ALLOWED"),
        ([created(scopes=("a",))], {"scopes": ["a", "b"]}, "INSUFFICIENT_SCOPE"),
        ([created(scopes=())], {"scopes": ["a"]}, "INSUFFICIENT_SCOPE"),
    ],
)
def test_each_code_follows_from_the_ledger(asking: Asking, given_events, asked, then) -> None:
    asking.index.tell("org", *BEGINNING, *given_events)
    answer = asking.ask(**asked)
    assert (answer.code, answer.valid) == (then, then == "VALID")


@pytest.mark.parametrize(
    ("wrong", "then"),
    [
        (ALL_WRONG, "REVOKED"),
        (ALL_WRONG[:3], "EXPIRED"),
        ((created(cidrs=(), scopes=()), *ALL_WRONG[1:3]), "ORG_KEYS_DISABLED"),
        ((created(cidrs=(), scopes=()), OWNER_DISABLED), "OWNER_DISABLED"),
        ((created(cidrs=(), scopes=()),), "IP_NOT_ALLOWED"),
        ((created(scopes=()),), "INSUFFICIENT_SCOPE"),
    ],
)
def test_the_first_refusal_in_the_order_of_the_design_wins(asking: Asking, wrong, then) -> None:
    asking.index.tell("org", *BEGINNING, *wrong)
    assert asking.code(scopes=["needed"]) == then


def test_a_known_key_is_described_and_an_unknown_one_is_not(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created(scopes=("a",), expires_at=LATER))
    assert asking.ask() == Answer(
        valid=True,
        code="VALID",
        key_id=key_id(),
        org_id="org",
        user_id="ann",
        role="admin",
        kind="person",
        name="nightly import",
        scopes=("a",),
        expires_at=LATER,
        revision=4,
        as_of=to_text(NOW_MS),
        max_staleness_ms=2000,
    )
    assert asking.ask(key_of(2)) == Answer(valid=False, code="NOT_FOUND")
    assert asking.ask(key_of(1, bytes(32))) == Answer(valid=False, code="NOT_FOUND")


def test_the_ledgers_own_time_expires_a_key_when_the_wall_clock_was_set_back(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created(expires_at=LATER))
    asking.index.tell("org", events.UserDisabled(user_id="ann"), time_ms=NOW_MS + 60_000)
    assert asking.code() == "EXPIRED"


def test_everything_well_formed_is_stale_until_the_follower_has_caught_up(asking: Asking) -> None:
    asking.index.teller.tell("org", *BEGINNING, created())
    asking.index.fold()
    assert asking.code() == "STALE"
    assert asking.code(key_of(2)) == "STALE"
    assert asking.code("no key") == "MALFORMED"
    assert asking.reader.why_stale() == "the follower has not learnt yet how far the ledger goes"
    asking.index.catch_up()
    assert asking.code() == "VALID"
    assert asking.reader.why_stale() is None


def test_a_key_is_stale_from_the_moment_at_which_the_lease_ends(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    asking.index.clock.advance(M_MS - 1)
    assert asking.code() == "VALID"
    asking.index.clock.advance(1)
    assert asking.code() == "STALE"
    asking.index.clock.advance(1500)
    assert "ran out 1.5 s ago" in (asking.reader.why_stale() or "")


def test_a_lease_of_another_boot_or_from_the_future_vouches_for_nothing(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    elsewhere = replace(asking.reader.clocks, boot_id="another boot")
    assert IndexReader(asking.index.store, elsewhere, M_MS).why_stale() is not None
    asking.index.clock.boot_ns -= 1
    assert asking.code() == "STALE"


def test_a_wall_clock_set_forward_ends_the_lease_and_one_set_back_does_not_prolong_it(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    asking.index.clock.wall_ms += M_MS
    assert asking.code() == "STALE"
    asking.index.clock.wall_ms -= 10 * M_MS
    assert asking.code() == "VALID"
    asking.index.clock.boot_ns += M_MS * 1_000_000
    assert asking.code() == "STALE"


def test_a_log_that_was_cut_leaves_nothing_that_is_believed(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    with pytest.raises(LogWasCut):
        asking.index.handler.log_was_cut("truncated")
    assert asking.code() == "STALE"
    asking.index.clock.advance(1)
    asking.index.catch_up()
    assert asking.code() == "VALID"


def test_a_halted_organisation_is_stale_alone_and_unknown_keys_are_not_found(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    asking.index.tell("other", *BEGINNING, created(2))
    asking.index.tell("org", created())  # The same key once more: a forbidden transition.
    assert asking.code() == "STALE"
    assert asking.code(key_of(1, bytes(32))) == "STALE"
    assert asking.code(key_of(2)) == "VALID"
    assert asking.code(key_of(3)) == "NOT_FOUND"


def test_a_gap_halts_until_it_is_filled(asking: Asking) -> None:
    index = asking.index
    index.tell("org", *BEGINNING, created())
    missing: Message = index.teller.message("org", REVOKED)
    index.tell("org", events.OrgKeysDisabled())
    assert asking.code() == "STALE"
    index.log.append(missing, 1)
    index.catch_up()
    assert asking.code() == "REVOKED"


def test_one_organisation_can_neither_hide_nor_halt_a_key_id_of_another(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    asking.index.tell("thief", *BEGINNING, created(digest="00" * 32))
    assert asking.ask().org_id == "org"
    asking.index.tell("thief", REVOKED, REVOKED)
    assert asking.code() == "STALE", "closed rather than wrong"


@pytest.mark.parametrize(
    "told",
    [
        [ANN],
        [REGISTERED, REGISTERED],
        [*BEGINNING, ANN],
        [*BEGINNING, created(user_id="nobody")],
        [*BEGINNING, created(), created()],
        [*BEGINNING, REVOKED],
        [*BEGINNING, created(), REVOKED, REVOKED],
        [*BEGINNING, events.KeyRenamed(key_id=key_id(), name="x")],
        [*BEGINNING, events.UserDisabled(user_id="nobody")],
        [*BEGINNING, events.PersonErased(user_id="ann"), events.UserEnabled(user_id="ann")],
    ],
)
def test_a_forbidden_transition_halts_its_organisation(asking: Asking, told) -> None:
    asking.index.tell("org", *told)
    with asking.reader.read() as (index, _):
        assert index.is_halted("org")


def test_garbage_on_the_topic_changes_nothing_and_is_counted(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    asking.index.log.append(Message(LIFECYCLE, partition_of("org"), b"org", b"[" * 20_000), 1)
    asking.index.catch_up()
    assert asking.code() == "VALID"
    assert asking.index.handler.counts == {"applied": 4, "foreign": 1}


def test_a_revision_that_is_not_there_yet_is_waited_for_and_then_stale(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    assert asking.code(min_revision="org:4") == "VALID"
    assert asking.code(min_revision="org:5") == "STALE"
    assert asking.code(key_of(9), min_revision="org:5") == "STALE", "it may have been created in that revision"
    assert asking.code(min_revision="unknown:1") == "STALE"


def test_a_batch_answers_in_order(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created())
    answers = asking.checker.validate_all([Asked(key_of()), Asked("x"), Asked(key_of(2)), Asked(key_of())])
    assert [answer.code for answer in answers] == ["VALID", "MALFORMED", "NOT_FOUND", "VALID"]


@given(at=st.integers(0, 74), character=st.sampled_from(key_text.ALPHABET + "_é\x00 "))
def test_a_key_text_with_one_changed_character_is_never_good(at: int, character: str) -> None:
    text = key_of()
    changed = text[:at] + character + text[at + 1 :]
    assert changed == text or key_text.parse(changed) is None


@given(secret=st.binary(min_size=32, max_size=32))
def test_a_key_text_with_another_secret_finds_nothing(secret: bytes) -> None:
    parsed = key_text.parse(key_of(1, secret))
    assert parsed is not None
    found = look_up(OneKey(), parsed.key_id, bytes.fromhex(parsed.digest))
    assert (found.facts is not None) == (secret == bytes(range(32)))


@given(digest=st.binary(max_size=64))
def test_no_digest_finds_a_key_that_does_not_exist(digest: bytes) -> None:
    assert look_up(OneKey(), key_id(2), digest).facts is None
    assert look_up(OneKey(), key_id(2), bytes(32)).facts is None


class OneKey:
    """A View of one organisation with one key."""

    def head(self, org: str) -> Head:
        return Head(4, "00" * 32, to_text(NOW_MS))

    def is_halted(self, org: str) -> bool:
        return False

    def org(self, org: str) -> Org | None:
        return Org(keys_enabled=True)

    def user(self, org: str, user_id: str) -> User | None:
        return User("person", "admin")

    def candidates(self, wanted: str) -> list[Key]:
        if wanted != key_id():
            return [Key(bytes(32), NOWHERE, "", "")]
        return [Key(bytes.fromhex(key_text.digest(key_of())), "org", "ann", "")]


@given(st.booleans(), st.booleans())
def test_nothing_found_is_never_valid(fresh: bool, halted: bool) -> None:
    code = decide(Found(None, halted), Use(None, None, NOW_MS), fresh=fresh)
    assert code is (Code.NOT_FOUND if fresh and not halted else Code.STALE)


def test_every_answer_about_a_key_whose_text_matched_is_one_use(asking: Asking) -> None:
    asking.index.tell("org", *BEGINNING, created(), created(2), events.KeyRevoked(key_id=key_id(2), reason="unused"))
    for key in (key_of(), key_of(2), key_of(3), key_of(1, bytes(32)), "no key"):
        asking.ask(key)
    asking.index.clock.advance(5000)
    asking.ask()
    asking.ask(key_of(3))
    codes, counted = asking.uses.counts()
    assert codes == {"VALID": 1, "REVOKED": 1, "NOT_FOUND": 2, "MALFORMED": 1, "STALE": 2}
    assert counted["uses"] == 3
    asking.uses.start()
    asking.uses.stop(5)
    used = [decoder.decode_usage(message.value) for chunk in asking.spool.oldest(9) for message in chunk.messages]
    assert sorted((use.event.key_id, use.event.outcome, use.event.count) for use in used) == [
        (key_id(1), "STALE", 1),
        (key_id(1), "VALID", 1),
        (key_id(2), "REVOKED", 1),
    ]
