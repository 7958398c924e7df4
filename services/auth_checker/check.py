"""Is this key good? Pure: what was read in one transaction and the time go in, one code comes out.

The order is that of DESIGN section 6, first match wins. MALFORMED is decided before anything is read.
"""

import hmac
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

import msgspec

from schemas.validation import Code
from services.auth_checker.key_index import ACTIVE, NOWHERE, Key, Org, User
from services.ledger.chain import Head


class View(Protocol):
    """What the check reads; `key_index.KeyIndex` is one."""

    def head(self, org: str) -> Head:
        """The organisation's head."""

    def is_halted(self, org: str) -> bool:
        """Whether the organisation is halted."""

    def org(self, org: str) -> Org | None:
        """The organisation."""

    def user(self, org: str, user_id: str) -> User | None:
        """A user of the organisation."""

    def candidates(self, key_id: str) -> list[Key]:
        """The keys of this id in all organisations; for an unknown id one of NOWHERE."""


class Facts(msgspec.Struct, frozen=True, gc=False):
    """All that is known about a key whose whole text matched."""

    key_id: str
    org_id: str
    user_id: str
    key: Key
    user: User
    org: Org
    head: Head


class Found(msgspec.Struct, frozen=True, gc=False):
    """What a key text led to; `halted` when its key id stands in an organisation that is halted."""

    facts: Facts | None
    halted: bool


def look_up(view: View, key_id: str, digest: bytes) -> Found:
    """Find the key of this text."""
    facts, halted = None, False
    for key in view.candidates(key_id):
        org_id = key.org_id
        halted = view.is_halted(org_id) or halted
        if hmac.compare_digest(key.digest, digest) and org_id != NOWHERE:
            user, org = view.user(org_id, key.user_id), view.org(org_id)
            if user is not None and org is not None:
                facts = Facts(key_id, org_id, key.user_id, key, user, org, view.head(org_id))
    return Found(facts, halted)


class Use(msgspec.Struct, frozen=True, gc=False):
    """What the key is to be used for: the scopes needed, from which address, at which wall time."""

    scopes: list[str] | None
    ip: str | None
    now_ms: int


def decide(found: Found, use: Use, *, fresh: bool) -> Code:
    """The code of a well-formed key text; `fresh` says whether the index may be believed."""
    if not fresh or found.halted:
        return Code.STALE
    if found.facts is None:
        return Code.NOT_FOUND
    return _judge(found.facts, use)


def _judge(facts: Facts, use: Use) -> Code:  # One return for each code.
    key = facts.key
    if key.revoked:
        return Code.REVOKED
    if key.expires_at is not None and _is_expired(key, facts.head, use.now_ms):
        return Code.EXPIRED
    if not facts.org.keys_enabled:
        return Code.ORG_KEYS_DISABLED
    if facts.user.status != ACTIVE:
        return Code.OWNER_DISABLED
    if key.cidrs is not None and _is_outside(key.cidrs, use.ip):
        return Code.IP_NOT_ALLOWED
    if use.scopes and key.scopes is not None and not set(use.scopes) <= set(key.scopes):
        return Code.INSUFFICIENT_SCOPE
    return Code.VALID


def _is_expired(key: Key, head: Head, now_ms: int) -> bool:
    # A wall clock that was set back must not bring an expired key to life again: the ledger's own time counts too.
    # The texts have a fixed width, so comparing them compares the times.
    return (key.expires_ms or 0) <= now_ms or (key.expires_at or "") <= head.time


def _is_outside(cidrs: tuple[str, ...], ip: str | None) -> bool:
    found = None if ip is None else address(ip[:64])
    return found is None or not any(found in _network(cidr) for cidr in cidrs)


@lru_cache(8192)
def address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address as people and proxies write it; an IPv4 address inside an IPv6 one is that IPv4 address."""
    if "%" in text:  # A zone means something on one machine only.
        return None
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


_network = lru_cache(8192)(ip_network)
