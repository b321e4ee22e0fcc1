import pytest

from postprocess.lint import ambiguous_band, warnings
from postprocess.parameters import Parameters


def codes(*, classes=10, resolution=2.0**-23, **changes):
    values = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "scores": "logits", **changes}
    found = warnings(Parameters(**values), classes=classes, resolution=resolution)
    return [warning.code for warning in found]


def test_what_is_shipped_gets_no_warning():
    assert codes() == []
    assert codes(classes=1000) == []


@pytest.mark.parametrize(
    ("beta", "gamma", "band"),
    [(0.9, 0.2, 0.44), (0.21, 0.2, 0.080), (0.02, 0.2, 0.005), (1.0, 1.0, 0), (3, 0.4, 0)],
)
def test_the_ambiguous_band_is_the_published_one(beta, gamma, band):
    assert ambiguous_band(beta, gamma) == pytest.approx(band, abs=0.005)


def test_a_steep_slope_is_ambiguous_in_the_middle():
    assert ambiguous_band(0.9, 2) > 0.3
    assert ambiguous_band(0.3, 2) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"beta": 1, "gamma": 1}, ["no-ambiguity"]),
        ({"beta": 2, "gamma": 1}, ["no-ambiguity"]),
        ({"beta": 3, "gamma": 0.4}, ["no-ambiguity"]),
        ({"beta": 0.3, "gamma": 2}, ["no-ambiguity", "weak"]),
        ({"beta": 0.02}, ["narrow-band", "helps-the-thief"]),
        ({"beta": 0.21}, ["helps-the-thief"]),
        ({"beta": 0.9}, ["weak"]),
        ({"margin": 0.2}, ["weak"]),
        ({"margin": 0.0}, ["margin-below-resolution"]),
        ({"margin": 0.0, "multi_label": True}, []),
        ({"margin": 0.0, "preserve_top1": False}, ["top1-not-kept"]),
        ({"margin": 0.0001, "resolution": 2.0**-10}, ["margin-below-resolution"]),
        ({"decimals": 2}, ["margin-below-resolution"]),
        ({"decimals": 3}, []),
        ({"decimals": 2, "classes": None}, []),
        ({"defense": "none", "beta": None, "gamma": None}, ["defense-none"]),
        ({"defense": "none"}, ["defense-none", "idle-parameter", "idle-parameter"]),
        ({"defense": "sine", "frequency": 10, "gamma": None}, []),
        ({"seed": 1, "rho": 1}, ["idle-parameter", "idle-parameter"]),
    ],
)
def test_each_bad_setting_gets_its_warning_and_no_other(changes, expected):
    assert sorted(codes(**changes)) == sorted(expected)
