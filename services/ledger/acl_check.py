"""Where Kafka runs an authorizer: refuse topics that the wrong hands could write, cut or delete.

Principals have no fixed names, so roles are read from the rules themselves: who may write `key-lifecycle` is a command
API, who may write `key-usage` is a checker, and nobody is both. DESIGN section 2 has the table.
"""

from collections.abc import Sequence
from typing import Any, Final

from kafka.admin import (
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import SecurityDisabledError

from schemas.topics import CHECKER_STATUS, LIFECYCLE, USAGE

_WRITES: Final = (ACLOperation.WRITE, ACLOperation.ALL)
_DESTROYS: Final = (ACLOperation.DELETE, ACLOperation.ALTER, ACLOperation.ALTER_CONFIGS, ACLOperation.ALL)
_EVERYBODY: Final = "User:*"


def faults(admin: Any, topics: Sequence[str]) -> list[str]:
    """What is wrong with the rules of these topics, in sentences; nothing where no authorizer runs."""
    try:
        rules = {topic: _allowed(admin, topic) for topic in topics}
    except SecurityDisabledError:
        return []
    found = [
        f"{principal} may {operation.name} {topic}: DELETE and ALTER are for nobody"
        for topic, allowed in rules.items()
        for principal, operation in allowed
        if operation in _DESTROYS
    ]
    writers = {topic: {who for who, operation in allowed if operation in _WRITES} for topic, allowed in rules.items()}
    sealed = [topic for topic in (LIFECYCLE, USAGE, CHECKER_STATUS) if topic in writers]
    found += [f"everybody may write {topic}" for topic in sealed if _EVERYBODY in writers[topic]]
    commands, checkers = writers.get(LIFECYCLE, set()), writers.get(USAGE, set())
    found += [
        f"{who} may write {LIFECYCLE} and {USAGE}: a checker must not write history" for who in commands & checkers
    ]
    strangers = writers.get(CHECKER_STATUS, set()) - commands - checkers - {_EVERYBODY}
    return found + [f"{who} may write {CHECKER_STATUS} and is neither command API nor checker" for who in strangers]


def _allowed(admin: Any, topic: str) -> list[tuple[str, ACLOperation]]:
    """Who may do what with a topic, by literal, prefixed and wildcard rules alike."""
    pattern = ResourcePatternFilter(ResourceType.TOPIC, topic, ACLResourcePatternType.MATCH)
    matching = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ALLOW, pattern)
    rules, _ = admin.describe_acls(matching)  # Errors are raised; the second part is always "none".
    return sorted((rule.principal, rule.operation) for rule in rules)
