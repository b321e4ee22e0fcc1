import dataclasses

import pytest

from postprocess.errors import InputError
from postprocess.parameters import Parameters

GOOD = {"beta": "1.5", "gamma": "0.2", "scores": "logits"}
NUMBER = "expected a number from 0.001 to 100"
KNOWN = (
    "known are scores, defense, beta, gamma, preserve_top1, margin, multi_label, class_axis, "
    "rho, frequency, seed, decimals, calibration"
)
DEFENCES = (
    "reverse_sigmoid or uniform or uniform_concave or uniform_convex or sine or calibrated "
    "or decoy or none"
)


def test_strings_become_parameters():
    strings = {**GOOD, "defense": "reverse_sigmoid", "preserve_top1": "false", "margin": "1e-2"}
    assert Parameters.from_strings(strings, where="here") == Parameters(
        beta=1.5, gamma=0.2, scores="logits", preserve_top1=False, margin=0.01
    )


def test_the_constraint_is_on_unless_told_otherwise():
    assert Parameters.from_strings(GOOD, where="here").preserve_top1


def test_tritons_own_parameters_may_stand_beside_ours():
    beside = {**GOOD, "EXECUTION_ENV_PATH": "/opt/env.tar.gz", "FORCE_CPU_ONLY_INPUT_TENSORS": "no"}
    assert Parameters.from_strings(beside, where="here") == Parameters.from_strings(
        GOOD, where="here"
    )


def test_parameters_cannot_be_changed():
    parameters = Parameters.from_strings(GOOD, where="here")
    with pytest.raises(dataclasses.FrozenInstanceError):
        parameters.beta = 0.001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": "-1"}, f"parameter beta: {NUMBER}, got -1"),
        ({"beta": "0"}, f"parameter beta: {NUMBER}, got 0"),
        ({"beta": "nan"}, f"parameter beta: {NUMBER}, got 'nan'"),
        ({"beta": "inf"}, f"parameter beta: {NUMBER}, got 'inf'"),
        ({"beta": "1e999"}, f"parameter beta: {NUMBER}, got inf"),
        ({"beta": "abc"}, f"parameter beta: {NUMBER}, got 'abc'"),
        ({"beta": ""}, f"parameter beta: {NUMBER}, got ''"),
        ({"beta": " 1"}, f"parameter beta: {NUMBER}, got ' 1'"),
        ({"beta": "1_0"}, f"parameter beta: {NUMBER}, got '1_0'"),
        ({"beta": "0,9"}, f"parameter beta: {NUMBER}, got '0,9'"),
        ({"beta": "\u0661"}, f"parameter beta: {NUMBER}, got '\u0661'"),
        ({"beta": "1e-9"}, f"parameter beta: {NUMBER}, got 1e-09"),
        ({"beta": "101"}, f"parameter beta: {NUMBER}, got 101"),
        ({"beta": None}, f"parameter beta: {NUMBER}, but it is missing"),
        ({"gamma": "-1"}, f"parameter gamma: {NUMBER}, got -1"),
        ({"gamma": "0"}, f"parameter gamma: {NUMBER}, got 0"),
        ({"gamma": "nan"}, f"parameter gamma: {NUMBER}, got 'nan'"),
        ({"gamma": "abc"}, f"parameter gamma: {NUMBER}, got 'abc'"),
        ({"gamma": None}, f"parameter gamma: {NUMBER}, but it is missing"),
        ({"margin": "1"}, "parameter margin: expected a number from 0 to 0.9, got 1"),
        ({"margin": "-0.1"}, "parameter margin: expected a number from 0 to 0.9, got -0.1"),
        ({"scores": None}, "parameter scores: expected logits or probabilities, but it is missing"),
        (
            {"scores": "softmax"},
            "parameter scores: expected logits or probabilities, got 'softmax'",
        ),
        ({"defense": "off"}, f"parameter defense: expected {DEFENCES}, got 'off'"),
        ({"defense": "None"}, f"parameter defense: expected {DEFENCES}, got 'None'"),
        (
            {"defense": "sine"},
            "parameter frequency: expected a number from 0.001 to 1e+06, but it is missing",
        ),
        ({"defense": "uniform_convex"}, f"parameter rho: {NUMBER}, but it is missing"),
        (
            {"defense": "none", "decimals": "2"},
            "parameter decimals: expected defense reverse_sigmoid with it, got none",
        ),
        (
            {"seed": "-1"},
            "parameter seed: expected an integer from 0 to 9223372036854775807, got '-1'",
        ),
        ({"decimals": "2.0"}, "parameter decimals: expected an integer from 1 to 6, got '2.0'"),
        ({"decimals": "7"}, "parameter decimals: expected an integer from 1 to 6, got 7"),
        (
            {"decimals": "2", "preserve_top1": "false"},
            "parameter decimals: expected preserve_top1 true with it",
        ),
        (
            {"decoy": "4"},
            "parameter decoy: retired: write defense decoy, without decoy, key_file and jitter; it "
            "has no levels",
        ),
        (
            {"key_file": "secret"},
            "parameter key_file: retired: answers that cannot be inverted are defense decoy, which "
            "needs no secret",
        ),
        (
            {"jitter": "0.5"},
            "parameter jitter: retired: answers that cannot be inverted are defense decoy, which "
            "needs no secret",
        ),
        (
            {"defense": "decoy", "preserve_top1": "false"},
            "parameter preserve_top1: expected true with defense decoy",
        ),
        ({"multi_label": "1"}, "parameter multi_label: expected true or false, got '1'"),
        ({"preserve_top1": "yes"}, "parameter preserve_top1: expected true or false, got 'yes'"),
        ({"preserve_top1": "True"}, "parameter preserve_top1: expected true or false, got 'True'"),
        ({"bata": "1"}, f"unknown parameter 'bata'; did you mean beta? {KNOWN}"),
        ({"Gamma": "1"}, f"unknown parameter 'Gamma'; did you mean gamma? {KNOWN}"),
        (
            {"preserve_top": "1"},
            f"unknown parameter 'preserve_top'; did you mean preserve_top1? {KNOWN}",
        ),
        ({"zzz": "1"}, f"unknown parameter 'zzz'; {KNOWN}"),
    ],
)
def test_bad_parameters_are_refused_in_one_clear_line(change, message):
    strings = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(InputError) as refusal:
        Parameters.from_strings(strings, where="m/config.pbtxt")
    assert str(refusal.value) == f"m/config.pbtxt: {message}"
