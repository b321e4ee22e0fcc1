"""Each known attack on the real gateway and the real Triton: others do not notice."""

import pytest
from siege import every_order


@pytest.mark.parametrize(("name", "by"), every_order())
def test_an_attack_changes_nothing_for_others(besieged, name, by):
    besieged.survive((name, by))
