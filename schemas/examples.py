"""One canonical instance of each event, for docs and tests, ours and other teams'."""

from typing import Final

from schemas import events

ORG, USER, ADMIN = "org_example", "0193f0a1b2c3d4e5f60718", "0193f0a1b2c3d4e5f60719"
KEY: Final = "01JDEMOKEY000000000001"

LEDGER_EVENTS: Final[tuple[events.LedgerEvent, ...]] = (
    events.OrgRegistered(name="Example Biologics"),
    events.UserAdded(user_id=ADMIN, kind="person", role="admin"),
    events.UserAdded(user_id=USER, kind="service_account", role="member"),
    events.OrgKeysEnabled(reason="asked for by their IT team"),
    events.KeyCreated(
        key_id=KEY,
        user_id=USER,
        name="nightly import 2026",
        digest="5f" * 32,
        last4="Zz09",
        expires_at="2027-11-23T00:00:00.000Z",
        scopes=("keys:read",),
        cidrs=("192.0.2.0/24", "2001:db8::/32"),
    ),
    events.KeyRenamed(key_id=KEY, name="nightly import"),
    events.KeyRevoked(key_id=KEY, reason="superseded", comment="rotated"),
    events.UserRoleChanged(user_id=USER, role="auditor"),
    events.UserDisabled(user_id=USER),
    events.UserEnabled(user_id=USER),
    events.PersonErased(user_id=USER),
    events.OrgKeysDisabled(),
    events.LedgerResumed(offsets=(17, 18), reason="records of a restored backup"),
)

KEY_USED: Final = events.KeyUsed(
    key_id=KEY,
    org_id=ORG,
    user_id=USER,
    outcome="VALID",
    count=3,
    first_at="2026-11-23T10:00:00.000Z",
    last_at="2026-11-23T10:00:00.900Z",
    ip="192.0.2.7",
    user_agent="curl/8.5.0",
)


def envelope(event: events.LedgerEvent, revision: int = 1, parent: str = "0" * 64) -> events.Envelope:
    """The event in an envelope of the example organisation."""
    return events.Envelope(
        id=f"0193f0a1-b2c3-7d4e-8f60-{revision:012d}",
        source="keyledger/command-api",
        subject=str(getattr(event, "key_id", None) or getattr(event, "user_id", ORG)),
        time="2026-11-23T10:00:00.000Z",
        org=ORG,
        revision=revision,
        parent=parent,
        authid=ADMIN,
        authtype="user",
        commandid="ab" * 32,
        commandhash="cd" * 32,
        event=event,
    )


def usage(sequence: int | None = 1) -> events.UsageEnvelope:
    """The example use in its envelope."""
    return events.UsageEnvelope(
        id="0193f0a1-b2c3-7d4e-8f60-000000000099",
        source="keyledger/auth-checker/7c9e6679",
        subject=KEY,
        time="2026-11-23T10:00:01.000Z",
        event=KEY_USED,
        sequence=sequence,
    )
