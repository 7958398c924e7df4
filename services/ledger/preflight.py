"""At every start: make the topics that are missing, and refuse to run on ones that would lose or split history."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from schemas.topics import TOPICS, Topic
from services.ledger import acl_check
from services.ledger.kafka_clients import connected
from services.ledger.log import LogUnavailable

_REPLICAS: Final = 3
_BOOTSTRAP_MS: Final = 5000
_AGAIN_AFTER_S: Final = 1.0
_NEWS_S: Final = 2.0
"""So long a broker of a cluster may take to hear of the topics, and of their settings, that were just made."""
_LOOK_S: Final = 0.2
_SAFE: Final = {"unclean.leader.election.enable": "false"}
_log = structlog.get_logger("keyledger.ledger")


class PreflightFailed(Exception):
    """A topic is not as the ledger needs it; the message says what and how to repair it."""


def prepare(
    bootstrap: str, topics: Sequence[Topic] = TOPICS, known_ids: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Make missing topics, check the others, and give the topic ids, to be stored beside the offsets.

    `known_ids` are the ids seen at an earlier start. Raises PreflightFailed, and LogUnavailable when Kafka is away.
    """
    admin = connected(
        KafkaAdminClient,
        bootstrap_servers=bootstrap,
        client_id="keyledger-preflight",
        bootstrap_timeout_ms=_BOOTSTRAP_MS,
    )
    try:
        _make_missing(admin, topics)
        described = _checked(admin, topics)
        faults = acl_check.faults(admin, [topic.name for topic in topics])
    except KafkaError as error:
        raise LogUnavailable(repr(error)) from error
    finally:
        admin.close()
    if faults:
        raise PreflightFailed("; ".join(faults))
    ids = {name: str(entry["topic_id"]) for name, entry in described.items()}
    _refuse_remade(ids, known_ids or {})
    return ids


def prepare_patiently(
    bootstrap: str, topics: Sequence[Topic] = TOPICS, known_ids: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`prepare`, again and again while Kafka is away. Raises PreflightFailed."""
    while True:
        try:
            return prepare(bootstrap, topics, known_ids)
        except LogUnavailable as error:
            _log.warning("waiting_for_kafka", bootstrap=bootstrap, error=str(error))
            time.sleep(_AGAIN_AFTER_S)


def _checked(admin: Any, topics: Sequence[Topic]) -> dict[str, Mapping[str, Any]]:
    """The topics as the brokers describe them. Raises PreflightFailed, and LogUnavailable for one that is not known."""
    give_up_s = time.monotonic() + _NEWS_S
    while True:
        described = {entry["name"]: entry for entry in admin.describe_topics([topic.name for topic in topics])}
        try:
            for topic in topics:
                # No topic is without partitions: this broker has not heard yet of one that was just made.
                if not described.get(topic.name, {}).get("partitions"):
                    raise LogUnavailable(f"the broker does not know {topic.name} yet")
                _check(topic, described[topic.name], _config(admin, topic.name))
            return described
        except (PreflightFailed, LogUnavailable):
            if time.monotonic() > give_up_s:
                raise
        time.sleep(_LOOK_S)


def _make_missing(admin: Any, topics: Sequence[Topic]) -> None:
    existing = set(admin.list_topics())
    missing = [topic for topic in topics if topic.name not in existing]
    if not missing:
        return
    brokers = len(admin.describe_cluster()["brokers"])
    replicas = _REPLICAS if brokers >= _REPLICAS else 1
    if replicas == 1:
        _log.warning(
            "one_replica", meaning=f"{brokers} broker(s): every record is on one disk; losing it loses history"
        )
    for topic in missing:
        config = topic.config | _SAFE | ({"min.insync.replicas": "2"} if replicas == _REPLICAS else {})
        wanted = {"num_partitions": topic.partitions, "replication_factor": replicas, "configs": config}
        try:
            admin.create_topics({topic.name: wanted}, timeout_ms=15_000)
        except TopicAlreadyExistsError:
            _log.info("topic_made_by_another_process", topic=topic.name)
    admin.wait_for_topics([topic.name for topic in missing], timeout_ms=15_000)


def _check(topic: Topic, described: Mapping[str, Any], config: Mapping[str, str]) -> None:
    partitions = len(described["partitions"])
    if partitions < topic.partitions:
        raise PreflightFailed(
            f"{topic.name} has {partitions} partitions, the ledger needs {topic.partitions}: restore the topic as it was"
        )
    if partitions > topic.partitions:
        _log.error("partitions_ignored", topic=topic.name, partitions=partitions, used=topic.partitions)
    if config.get("unclean.leader.election.enable") == "true":
        raise PreflightFailed(
            f"{topic.name}: set unclean.leader.election.enable=false, else acknowledged events get lost"
        )
    if config.get("compression.type", "producer") != "uncompressed":
        raise PreflightFailed(
            f"{topic.name}: set compression.type=uncompressed, else a small record may become a huge one"
        )
    if "compact" in config.get("cleanup.policy", "delete"):
        raise PreflightFailed(f"{topic.name}: set cleanup.policy=delete, compaction destroys history")
    if topic.config["retention.ms"] == "-1":
        for name in ("retention.ms", "retention.bytes"):
            if config.get(name, "-1") != "-1":
                raise PreflightFailed(f"{topic.name}: set {name}=-1, this history is kept for ever")


def _refuse_remade(ids: Mapping[str, str], known_ids: Mapping[str, str]) -> None:
    for name, known in known_ids.items():
        if name in ids and ids[name] != known:
            raise PreflightFailed(
                f"{name} was deleted and made again (topic id {known} is now {ids[name]}): stop the command APIs, append what"
                f' it lacks of read.ledger_records, empty the tables of the fold and start again, as "The log was cut" in'
                f" docs/operations.md says step by step"
            )


def _config(admin: Any, topic: str) -> dict[str, str]:
    described = admin.describe_configs([ConfigResource("TOPIC", topic)])
    found: dict[str, str] = {}
    _collect(described, found)
    return found


def _collect(node: Any, found: dict[str, str]) -> None:
    """The client nests the answer by resource type and name; entries are the mappings that have a value."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            if isinstance(inner, Mapping) and "value" in inner:
                found[str(name)] = str(inner["value"])
            else:
                _collect(inner, found)
    elif isinstance(node, list | tuple):
        for inner in node:
            _collect(inner, found)
