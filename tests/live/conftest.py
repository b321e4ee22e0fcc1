"""Files of real servers: each is slow, but for those that say in seconds whether serving works."""

from pathlib import Path

import pytest

QUICK = ("test_answers.py", "test_gateway_door.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in QUICK:
            item.add_marker(pytest.mark.slow)
