"""The Kafka and the PostgreSQL that tests are given are real ones."""

import psycopg
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient


def test_kafka_keeps_a_record(kafka_bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    admin.create_topics({"infrastructure": {"num_partitions": 1, "replication_factor": 1}})
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, enable_idempotence=False, acks="all")
    producer.send("infrastructure", b"kept").get(10)
    consumer = KafkaConsumer(
        "infrastructure", bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    assert next(consumer).value == b"kept"
    for client in (consumer, producer, admin):
        client.close()


def test_each_test_has_a_database_of_its_own(database: str, database_url: str) -> None:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT current_database(), version()").fetchone()
    assert row is not None
    assert row[0].startswith("test_")
    assert database != database_url
