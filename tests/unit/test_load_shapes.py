import pytest

from load_tests.load_shapes import BurstShape, RampShape, SteadyShape


@pytest.mark.parametrize(
    ("shape", "at_s", "users"),
    [
        (SteadyShape, 0, 20),
        (SteadyShape, 59, 20),
        (RampShape, 0, 1),
        (RampShape, 30, 11),
        (RampShape, 60, 20),
        (BurstShape, 0, 4),
        (BurstShape, 19, 4),
        (BurstShape, 20, 20),
        (BurstShape, 29, 20),
        (BurstShape, 31, 4),
    ],
)
def test_shapes_of_20_users_in_a_minute(shape, at_s, users):
    assert abs(shape().users(at_s, 20, 60) - users) <= (shape is RampShape)
