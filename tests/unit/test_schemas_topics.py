"""Topics and partitions: the same organisation is in the same partition for every program that writes to Kafka."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as murmur2_of_kafka

from schemas.topics import LIFECYCLE, PARTITIONS, TOPICS, murmur2, partition_of


@settings(deadline=None)
@given(st.binary(max_size=70))
def test_the_hash_is_that_of_kafkas_own_partitioner(data: bytes) -> None:
    assert murmur2(data) & 0x7FFFFFFF == murmur2_of_kafka(data) & 0x7FFFFFFF


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=64))
def test_a_partition_is_the_positive_hash_modulo_twelve(key: str) -> None:
    assert partition_of(key) == (murmur2_of_kafka(key.encode()) & 0x7FFFFFFF) % 12


@pytest.mark.parametrize(
    ("text", "value"), [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)]
)
def test_the_hash_is_that_of_kafkas_java_client(text: str, value: int) -> None:
    assert murmur2(text.encode()) == value % 2**32


@pytest.mark.parametrize(("key", "partition"), [("platform", 7), ("org_example", 5), ("", 9)])
def test_an_organisation_never_moves_to_another_partition(key: str, partition: int) -> None:
    assert partition_of(key) == partition


def test_history_is_kept_for_ever_and_nothing_is_compacted() -> None:
    by_name = {topic.name: topic for topic in TOPICS}
    assert by_name[LIFECYCLE].partitions == PARTITIONS == 12
    assert by_name[LIFECYCLE].config["retention.ms"] == by_name["ledger-checkpoints"].config["retention.ms"] == "-1"
    assert by_name["key-usage"].config["retention.ms"] == str(400 * 24 * 3600 * 1000)
    assert {topic.config["cleanup.policy"] for topic in TOPICS} == {"delete"}
