from types import SimpleNamespace

import pytest


@pytest.fixture
def shapes(unpatched_locust):
    from load_tests.users import load_shapes

    return load_shapes


def at(shape, seconds, **options):
    """Return what a shape wants so many seconds after the start."""
    options = SimpleNamespace(**{"num_users": 21, "spawn_rate": 3, "run_time": 100} | options)
    shape.runner = SimpleNamespace(environment=SimpleNamespace(parsed_options=options))
    shape.get_run_time = lambda: seconds
    return shape.tick()


def test_a_steady_load_has_all_users_at_the_rate_that_was_asked_for(shapes):
    assert [at(shapes.SteadyShape(), now) for now in (0, 50, 99.9)] == [(21, 3)] * 3


def test_a_ramp_rises_evenly_to_all_users_over_the_run_time(shapes):
    ramp = shapes.RampShape()
    assert [at(ramp, now)[0] for now in (0, 25, 50, 75, 99.9)] == [1, 6, 11, 16, 21]
    assert [at(ramp, now, run_time=None)[0] for now in (0, 30, 60, 600)] == [1, 11, 21, 21]


def test_a_burst_has_all_users_for_the_last_ten_seconds_of_each_half_minute(shapes):
    burst = shapes.BurstShape()
    assert [at(burst, now)[0] for now in (0, 19.9, 20, 29.9, 30, 55)] == [4, 4, 21, 21, 4, 21]
    assert at(burst, 0)[1] == at(burst, 20)[1] == 21


@pytest.mark.parametrize("name", ["steady", "ramp", "burst"])
def test_every_shape_ends_with_the_run_time_and_without_one_never(shapes, name):
    shape = shapes.SHAPES[name]()
    assert at(shape, 100) is None
    assert at(shape, 1e6, run_time=None) is not None
    assert all(at(shape, now, num_users=1)[0] == 1 for now in range(100))


@pytest.mark.parametrize(("name", "expected"), [(None, "NoneType"), ("burst", "BurstShape")])
def test_the_option_chooses_the_shape_and_without_it_there_is_none(shapes, name, expected):
    options = SimpleNamespace(shape=name)
    environment = SimpleNamespace(parsed_options=options, shape_class="the first", runner=None)
    shapes.choose(environment)
    assert type(environment.shape_class).__name__ == expected
