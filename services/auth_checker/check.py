"""Is this key good? Pure: what was read in one transaction and the time go in, one code comes out.

The order is that of DESIGN section 6, first match wins. MALFORMED is decided before anything is read.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Protocol

from schemas.times import to_ms
from schemas.validation import Code
from services.auth_checker.key_index import ACTIVE, Key, Org, User
from services.ledger.chain import Head

_NOBODY: Final = Key(bytes(32), "", "", None, None, None)
"""Compared with when a key id is unknown, so that unknown and wrong take the same path and the same time."""
_NOWHERE: Final = " "
"""An org id that no organisation can have, looked at for the same reason."""


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

    def orgs_of(self, key_id: str) -> list[str]:
        """Where a key of this id exists."""

    def key(self, org: str, key_id: str) -> Key | None:
        """A key of the organisation."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known about a key whose whole text matched."""

    key_id: str
    org_id: str
    key: Key
    user: User
    org: Org
    head: Head


@dataclass(frozen=True, slots=True)
class Found:
    """What a key text led to; `halted` when its key id stands in an organisation that is halted."""

    facts: Facts | None
    halted: bool


def look_up(view: View, key_id: str, digest: bytes) -> Found:
    """Find the key of this text."""
    facts, halted = None, False
    for org_id in view.orgs_of(key_id) or (_NOWHERE,):
        key = view.key(org_id, key_id) or _NOBODY
        halted = view.is_halted(org_id) or halted
        same = hmac.compare_digest(key.digest, digest)
        if same and key is not _NOBODY:
            user, org = view.user(org_id, key.user_id), view.org(org_id)
            if user is not None and org is not None:
                facts = Facts(key_id, org_id, key, user, org, view.head(org_id))
    return Found(facts, halted)


@dataclass(frozen=True, slots=True)
class Use:
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
    for code, is_so in _REFUSALS:
        if is_so(found.facts, use):
            return code
    return Code.VALID


def _is_expired(facts: Facts, use: Use) -> bool:
    # A wall clock that was set back must not bring an expired key to life again: the ledger's own time counts too.
    expires_at = facts.key.expires_at
    return expires_at is not None and to_ms(expires_at) <= max(use.now_ms, to_ms(facts.head.time))


def _is_outside(facts: Facts, use: Use) -> bool:
    if facts.key.cidrs is None:
        return False
    found = None if use.ip is None else address(use.ip[:64])
    return found is None or not any(found in _network(cidr) for cidr in facts.key.cidrs)


def _lacks_scope(facts: Facts, use: Use) -> bool:
    return bool(use.scopes) and facts.key.scopes is not None and not set(use.scopes or ()) <= set(facts.key.scopes)


_REFUSALS: Final[tuple[tuple[Code, Callable[[Facts, Use], bool]], ...]] = (
    (Code.REVOKED, lambda facts, _: facts.key.revoked),
    (Code.EXPIRED, _is_expired),
    (Code.ORG_KEYS_DISABLED, lambda facts, _: not facts.org.keys_enabled),
    (Code.OWNER_DISABLED, lambda facts, _: facts.user.status != ACTIVE),
    (Code.IP_NOT_ALLOWED, _is_outside),
    (Code.INSUFFICIENT_SCOPE, _lacks_scope),
)


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
