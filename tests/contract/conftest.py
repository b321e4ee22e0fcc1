import pytest

from deploy.existing import placing_in


@pytest.fixture(autouse=True)
def no_server_polls(monkeypatch):
    """No server reads these repositories, so nobody waits until one has."""
    monkeypatch.setattr(placing_in, "SCAN_S", 0)
