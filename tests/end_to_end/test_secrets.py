"""After the stories of this folder: no key, password or token of theirs stands anywhere.

That the search is not blind is shown by tests/fault/test_secrets.py and tests/unit/test_leaks.py.
"""

from tests.end_to_end.system import System
from tests.end_to_end.test_mission import create_key
from tests.leaks import search_everything


def test_no_secret_of_any_story_stands_in_any_store_record_log_or_file(system: System) -> None:
    system.validates_as(create_key(system)["key"], "VALID")
    searched = search_everything(system)
    print(f"\n{searched}")
    assert searched.secrets >= 5
    assert min(searched.bytes[kind] for kind in ("topic", "table", "file")) > 1000
    assert searched.found == []
