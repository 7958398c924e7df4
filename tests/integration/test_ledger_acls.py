"""The preflight on a broker with an authorizer."""

from collections.abc import Iterator

import pytest
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from schemas.topics import CHECKER_STATUS, LIFECYCLE, USAGE
from services.embedded.kafka import Broker
from services.embedded.ports import free_ports, is_taken
from services.ledger.preflight import PreflightFailed, prepare

_AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = next(port for port in free_ports(20) if not is_taken(port + 1))
    broker = Broker(tmp_path_factory.mktemp("authorized"), port, _AUTHORIZER)
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


@pytest.fixture
def admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    client.delete_acls([ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, everything)])
    client.close()


def allow(admin: KafkaAdminClient, who: str, operation: ACLOperation, topic: str) -> None:
    """Let a principal do something with a topic."""
    pattern = ResourcePattern(ResourceType.TOPIC, topic, ACLResourcePatternType.LITERAL)
    made = admin.create_acls([ACL(f"User:{who}", "*", operation, ACLPermissionType.ALLOW, pattern)])
    assert made["failed"] == []


def test_a_table_with_each_right_in_its_place_is_taken(admin: KafkaAdminClient, bootstrap: str) -> None:
    allow(admin, "command-api", ACLOperation.WRITE, LIFECYCLE)
    allow(admin, "checker", ACLOperation.WRITE, USAGE)
    for who in ("command-api", "checker"):
        allow(admin, who, ACLOperation.WRITE, CHECKER_STATUS)
        allow(admin, who, ACLOperation.READ, LIFECYCLE)
    assert LIFECYCLE in prepare(bootstrap)


@pytest.mark.parametrize(
    ("who", "operation", "topic", "said"),
    [
        ("anyone", ACLOperation.DELETE, LIFECYCLE, "DELETE and ALTER are for nobody"),
        ("anyone", ACLOperation.ALTER, LIFECYCLE, "DELETE and ALTER are for nobody"),
        ("anyone", ACLOperation.ALL, "*", "DELETE and ALTER are for nobody"),
        ("*", ACLOperation.WRITE, LIFECYCLE, "everybody may write key-lifecycle"),
        ("checker", ACLOperation.WRITE, LIFECYCLE, "a checker must not write history"),
        ("stranger", ACLOperation.WRITE, CHECKER_STATUS, "neither command API nor checker"),
    ],
)
def test_a_right_in_the_wrong_hands_is_refused(
    admin: KafkaAdminClient, bootstrap: str, who: str, operation: ACLOperation, topic: str, said: str
) -> None:
    allow(admin, "command-api", ACLOperation.WRITE, LIFECYCLE)
    allow(admin, "checker", ACLOperation.WRITE, USAGE)
    allow(admin, who, operation, topic)
    with pytest.raises(PreflightFailed, match=said):
        prepare(bootstrap)
