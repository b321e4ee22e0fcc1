import json

import numpy as np
import pytest

from load_tests.timing.closed_loop import Slice
from load_tests.timing.paired_rounds import MEASURES, Rounds, ratios, summary

P50, PER_SECOND = MEASURES.index("latency_p50_ms"), MEASURES.index("requests_per_second")


def slices(rng, count, *, ms=1.0, spread=0.2, disturbances=None):
    """Rounds of half a second or so, each slowed down by a disturbance of its own."""
    if disturbances is None:
        disturbances = rng.lognormal(0, spread, count)
    made = []
    for disturbance in disturbances:
        latencies = ms * disturbance * rng.lognormal(0, 0.1, rng.integers(20, 60))
        made.append(Slice(latencies, latencies.sum() / 1000))
    return made


def test_percentiles_and_throughput_equal_numpys_on_all_requests():
    made = slices(np.random.default_rng(0), 7)
    together = np.concatenate([one.latencies_ms for one in made])
    found = summary(Rounds(made, rows=32))
    for percentile in (50, 95, 99):
        assert found[f"latency_p{percentile}_ms"] == pytest.approx(
            np.percentile(together, percentile), rel=1e-12
        )
    assert found["requests"] == len(together)
    assert found["requests_per_second"] == pytest.approx(
        len(together) / sum(one.seconds for one in made)
    )
    assert found["rows_per_second"] == pytest.approx(32 * found["requests_per_second"])


@pytest.mark.parametrize("seed", range(5))
def test_a_round_taken_several_times_counts_as_often(seed):
    rng = np.random.default_rng(seed)
    made = slices(rng, 6)
    times = rng.integers(0, 4, 6)
    times[0] = 1
    repeated = [one for one, count in zip(made, times, strict=True) for _ in range(count)]
    together = np.concatenate([one.latencies_ms for one in repeated])
    per_second = len(together) / sum(one.seconds for one in repeated)
    assert Rounds(made, rows=8).measures(times) == pytest.approx(
        [*np.percentile(together, (50, 95, 99)), per_second, 8 * per_second], rel=1e-12
    )


@pytest.mark.parametrize("measure", ["latency_p50_ms", "latency_p95_ms", "requests_per_second"])
def test_the_interval_is_scipys_paired_bootstrap_of_rounds(measure):
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    above, below = slices(rng, 20, ms=1.5), slices(rng, 20)

    def value(made):
        together = np.concatenate([one.latencies_ms for one in made])
        if measure == "requests_per_second":
            return len(together) / sum(one.seconds for one in made)
        return np.percentile(together, int(measure[9:11]))

    def ratio(indices):
        drawn = indices.astype(int)
        return value([above[i] for i in drawn]) / value([below[i] for i in drawn])

    expected = bootstrap(
        (np.arange(20.0),), ratio, n_resamples=3000, method="percentile", rng=rng, vectorized=False
    ).confidence_interval
    found = ratios(Rounds(above, rows=1), Rounds(below, rows=1), rng=rng, resamples=3000)[measure]
    width = expected.high - expected.low
    assert found["value"] == pytest.approx(value(above) / value(below), rel=1e-12)
    assert found["low"] == pytest.approx(expected.low, abs=0.1 * width)
    assert found["high"] == pytest.approx(expected.high, abs=0.1 * width)


@pytest.mark.slow
def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        pair = [Rounds(slices(rng, 20, ms=ms), rows=1) for ms in (1.4, 1.0)]
        found = ratios(*pair, rng=rng, resamples=200)["latency_p50_ms"]
        held += found["low"] <= 1.4 <= found["high"]
    assert 0.86 <= held / 200 <= 0.99


def test_a_disturbance_that_both_models_share_cancels():
    rng = np.random.default_rng(3)
    shared = rng.lognormal(0, 0.7, 20)
    pair = [slices(rng, 20, ms=ms, disturbances=shared) for ms in (1.4, 1.0)]

    def width(above, below):
        found = ratios(Rounds(above, rows=1), Rounds(below, rows=1), rng=rng)["latency_p50_ms"]
        return found["high"] - found["low"]

    assert width(*pair) < width(pair[0], rng.permutation(np.array(pair[1], object))) / 2


def test_the_same_seed_gives_the_same_interval():
    pair = [Rounds(slices(np.random.default_rng(seed), 5), rows=1) for seed in (0, 1)]
    one, other = (ratios(*pair, rng=np.random.default_rng(7)) for _ in range(2))
    assert one == other


def test_a_model_that_never_answered_has_no_latency_and_no_ratio_in_json():
    silent = Rounds([Slice(np.array([]), 0.5, errors=3, error="down")] * 4, rows=8)
    well = Rounds(slices(np.random.default_rng(0), 4), rows=8)
    found = summary(silent)
    assert found["latency_p50_ms"] is None
    assert (found["requests"], found["errors"], silent.error) == (0, 12, "down")
    assert found["requests_per_second"] == 0
    ratio = ratios(well, silent, rng=np.random.default_rng(0))
    assert set(ratio["latency_p99_ms"].values()) == {None}
    assert set(ratio["requests_per_second"].values()) == {None}
    json.dumps([found, ratio], allow_nan=False)


def test_a_round_without_an_answer_is_left_out_of_the_percentiles():
    made = slices(np.random.default_rng(0), 5)
    some = Rounds([*made, Slice(np.array([]), 0.5, errors=1, error="down")], rows=1)
    assert summary(some)["latency_p50_ms"] == summary(Rounds(made, rows=1))["latency_p50_ms"]
    ratio = ratios(some, some, rng=np.random.default_rng(0))
    assert ratio["latency_p50_ms"] == {"value": 1, "low": 1, "high": 1}
