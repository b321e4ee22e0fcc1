"""Ten thousand random parameter maps, as config.pbtxt files: served, or refused in one line."""

import numpy as np
import pytest
from google.protobuf import text_format

from deploy.repository import model_config
from postprocess import defence_config
from postprocess.errors import InputError
from postprocess.postprocessor import Postprocessor

pytestmark = pytest.mark.slow

MAPS = 10_000
LOGITS = (np.random.default_rng(0).normal(size=(16, 5)) * 6).astype(np.float32)
GOOD = {
    "scores": ["logits", "probabilities"],
    "defense": [
        "reverse_sigmoid",
        "uniform",
        "uniform_concave",
        "uniform_convex",
        "sine",
        "decoy",
        "none",
    ],
    "beta": ["0.001", "0.21", "1", "1.5", "1e1", "100"],
    "gamma": ["0.001", ".2", "1", "2.5", "100."],
    "preserve_top1": ["true", "false"],
    "margin": ["0", "0.01", "0.9"],
    "multi_label": ["false", "true"],
    "class_axis": ["-1", "0"],
    "rho": ["0.1", "+5"],
    "frequency": ["10", "1e6"],
    "seed": ["0", "7", "9223372036854775807"],
    "decimals": ["1", "3", "6"],
}
BAD = [
    "", " ", "-1", "0", "nan", "inf", "-inf", "1e999", "1e-999", "0x1", "1_0", "1,5", "\u0661",
    "true ", "TRUE", "None", "null", "logit", "{}", "[1]", "../key", "/", "\n", "\x00", "'", '"',
    "1" * 400, "beta", "reverse-sigmoid", "\U0001f511", "1e", "e1", ".", "+", "7", "1.0.0",
]  # fmt: skip
UNKNOWN = ["bata", "Beta", "beta ", "", "gamma2", "defence", "top1", "\u03b2", "keyfile", "a" * 99]


def random_map(rng, directory):
    """Mostly right: what a person gets wrong is one or two things at a time."""
    chosen = {"scores", "defense", "beta", "gamma"} | {
        key for key in GOOD if rng.random() < rng.choice([0.1, 0.4])
    }
    values = {key: str(rng.choice(GOOD[key])).format(directory=directory) for key in sorted(chosen)}
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        action = rng.integers(3)
        key = str(rng.choice(sorted(values))) if values else "beta"
        if action == 0:
            values[key] = str(rng.choice(BAD))
        elif action == 1:
            values[str(rng.choice(UNKNOWN))] = "1"
        else:
            values.pop(key, None)
    return values


def as_pbtxt(values):
    lines = ['name: "m"', 'backend: "python"']
    for kind, name in (("input", "victim_scores"), ("output", "scores")):
        lines.append(f'{kind} [ {{ name: "{name}" data_type: TYPE_FP32 dims: [ 5 ] }} ]')
    for key, value in values.items():
        texts = (text_format.text_encoding.CEscape(text, True) for text in (key, value))
        lines.append('parameters {{ key: "{}" value: {{ string_value: "{}" }} }}'.format(*texts))
    return "\n".join(lines)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    return tmp_path


def test_a_random_parameter_map_serves_or_is_refused_in_one_clear_line(directory):
    rng = np.random.default_rng(20260102)
    path = directory / "config.pbtxt"
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    served, refusals = 0, set()
    for _ in range(MAPS):
        values = random_map(rng, directory)
        path.write_text(as_pbtxt(values), encoding="utf-8")
        config = model_config.as_dict(model_config.read(path))
        try:
            read = defence_config.read(config, directory=directory)
        except InputError as error:
            line = str(error)
            assert line.startswith(f"{path}: "), values
            assert "parameter" in line, values
            assert "\n" not in line, values
            assert any(word in line for word in ("expected", "unknown")), values
            refusals.add(line.split(", got", maxsplit=1)[0])
            continue
        served += 1
        parameters = read.parameters
        scores = LOGITS if parameters.scores == "logits" else probabilities
        answer = Postprocessor(parameters, table=read.table)(scores)
        assert answer.shape == scores.shape, values
        assert answer.dtype == np.float32, values
        assert ((answer >= 0) & (answer <= 1)).all(), values
        if not parameters.multi_label:
            assert np.abs(answer.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6, values
            if parameters.preserve_top1:
                assert (answer.argmax(axis=1) == LOGITS.argmax(axis=1)).all(), values
    assert served > MAPS / 10
    assert len(refusals) > 30
