"""What `benchmarks/corpus.py` writes is what the services would have written: the oracle takes all of it."""

import json
from collections import Counter
from pathlib import Path

from benchmarks.corpus import Corpus, Plan, keep_texts
from schemas import key_text
from services.ledger.log import Message
from services.ledger.records import Record
from tests import ledger_story as story
from tests import oracle

NOW_MS = 1_795_000_000_000
PLAN = Plan(orgs=4, users=3, keys=30, revoked=0.3, uses=5, seed=7)


def made(plan: Plan) -> tuple[Corpus, list[Message]]:
    corpus = Corpus(plan, story.KEYS, now_ms=NOW_MS, with_texts=True)
    return corpus, [*corpus.lifecycle(), *corpus.usage()]


def read(messages: list[Message]) -> list[Record]:
    return [
        Record(one.topic, one.partition, at, one.key, one.value, one.headers, NOW_MS) for at, one in enumerate(messages)
    ]


def test_every_ledger_is_whole_and_every_use_counts_once() -> None:
    corpus, messages = made(PLAN)
    tables = oracle.fold(read(messages), story.KEYS.keys)
    assert {row[0]: row[1] for row in tables["heads"]} == corpus.heads
    assert {row[4] for row in tables["heads"]} == {False}
    assert {row[1] for row in tables["ledger_records"]} == {"applied"}
    assert len(tables["users"]) == PLAN.orgs * PLAN.users
    assert {(row[0], row[1]): row[9] is not None for row in tables["keys"]} == {
        (key.org_id, key.key_id): key.revoked for key in corpus.keys
    }
    assert {row[2] for row in tables["key_usage"]} == {PLAN.uses}
    assert "usage_gaps" not in tables
    assert Counter(key.revoked for key in corpus.keys)[True] > 0


def test_the_texts_of_the_keys_are_real_and_kept_from_others(tmp_path: Path) -> None:
    corpus, _ = made(PLAN)
    keep_texts(corpus, tmp_path / "texts")
    assert (tmp_path / "texts").stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in (tmp_path / "texts").read_text().splitlines()]
    parsed = [key_text.parse(line["text"]) for line in lines]
    assert [key and key.key_id for key in parsed] == [key.key_id for key in corpus.keys]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others() -> None:
    assert made(PLAN)[1] == made(PLAN)[1]
    assert not {one.key for one in made(PLAN)[1]} & {one.key for one in made(Plan(orgs=4, seed=8))[1]}
