"""Python imports this before anything else where this folder is in PYTHONPATH, so also in processes that are spawned."""

import os

from tests.fault.planted import FLAWS

for _name in os.environ["KEYLEDGER_PLANTED"].split(","):
    FLAWS[_name]()
