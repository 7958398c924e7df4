"""The records of `key-lifecycle` in one transaction: chain, rows and archive."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from services.ledger.fold import Folder
from services.ledger.records import Record
from services.ledger.seal import LedgerKeys
from services.projector.database import Writer
from services.projector.pg_chain import PgChain
from services.projector.read_models.ledger_records import LedgerRecords, about
from services.projector.read_models.lifecycle import LifecycleFold


class LifecycleBatch:
    """Folds records in memory and writes all tables at the end. Raises StoreFailure and psycopg.Error.

    `created` are the keys that were made, as (org, key).
    """

    def __init__(self, session: Writer, keys: LedgerKeys, fold: type[LifecycleFold]) -> None:
        self._chain, self._fold, self._archive = PgChain(session), fold(session), LedgerRecords(session)
        self._folder = Folder(keys, self._chain, self._fold, self._archive)
        self.created = self._fold.created

    def project(self, records: Sequence[Record]) -> Counter[str]:
        """Sort and fold the records, in their order; counts by outcome."""
        self._load(records)
        for record in records:
            self._folder.take(record)
        self._write()
        return self._folder.counts

    def retry(self, org: str) -> None:
        """Fold what waits in a halted organisation."""
        self._folder.retry(org)
        self._write()

    def _write(self) -> None:
        self._archive.write()
        self._fold.write()
        self._chain.write()

    def _load(self, records: Sequence[Record]) -> None:
        """Fetch in few questions what the records look to be about; what they really are about is judged later."""
        orgs: set[str] = set()
        ids: dict[str, set[tuple[str, str]]] = {"user_id": set(), "key_id": set()}
        for record in records:
            try:
                org, data = (record.key or b"").decode("ascii"), about(record.value or b"")
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                continue  # The folder will find it foreign, and count it.
            if _is_id(org):
                orgs.add(org)
                for name, found in ids.items():
                    found.update((org, one) for one in [data.get(name)] if isinstance(one, str) and _is_id(one))
        self._chain.load(orgs)
        self._fold.load(orgs, ids["user_id"], ids["key_id"])


def _is_id(text: str) -> bool:
    return "\0" not in text and len(text) <= 64
