"""Which threads pay, told by made-up measurements, and what a config.pbtxt then says."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from deploy.benchmarks import threads
from deploy.benchmarks.threads import COUNT, SPINNING, candidates, choose
from postprocess.errors import InputError

WRITTEN = """\
name: "m"  # instance_group [ { count: 7 } ]
backend: "onnxruntime"
# One instance.
instance_group [ { kind: KIND_CPU, count: 1 } ]
dynamic_batching { }
"""


def parsed(text):
    return text_format.Parse(text, ModelConfig())


def measured(rows=(1, 1, 1), p50=(1, 1, 1), errors=0):
    def ratio(value, low, high):
        return {"value": value, "low": low, "high": high}

    return {"ratio": {"rows_per_second": ratio(*rows), "latency_p50_ms": ratio(*p50)},
            "errors": errors}  # fmt: skip


FASTER, SLOWER = (1.2, 1.1, 1.3), (0.8, 0.7, 0.9)
SAME = measured((1.02, 0.95, 1.1), (0.99, 0.9, 1.05))


def report(*cells, skipped=()):
    return {
        "machine": {"cpu": "a CPU", "cpu_count": 2},
        "cells": [
            {"batch": batch, "concurrency": 8, "ways": ways}
            for batch, ways in zip((1, 32), cells, strict=False)
        ],
        "skipped": [{"way": way} for way in skipped],
    }


@pytest.mark.parametrize(
    ("cells", "skipped", "way", "said"),
    [
        ([{"no spinning": SAME}], (), None, "no spinning gains nothing that is sure"),
        ([{"no spinning": measured(FASTER)}], (), "no spinning", "rows/s 1.20 (1.10 to 1.30) at 1"),
        ([{"no spinning": measured(FASTER, FASTER)}], (), None, "no spinning loses p50 1.20"),
        ([{"no spinning": measured(FASTER)}, {"no spinning": SAME}], (), "no spinning", "average"),
        ([{"one thread": measured(FASTER)}, {"one thread": measured(SLOWER)}], (), None,
         "one thread loses rows/s 0.80 (0.70 to 0.90) at 32 x 8"),
        ([{"no spinning": measured(FASTER), "one thread": measured((1.3, 1.1, 1.4))}], (),
         "one thread", "one thread gains"),
        ([{"no spinning": measured((1.02, 1.01, 1.03))}], (), None, "gains nothing that is sure"),
        ([{"one thread": measured(FASTER)}], ("one thread",), None, "nothing else was measured"),
        ([{"one thread": measured(FASTER, errors=1)}], (), None, "one thread fails"),
        ([{"one thread": measured(FASTER)}, {}], (), None, "nothing else was measured"),
    ],
)  # fmt: skip
def test_what_loses_somewhere_or_gains_nothing_sure_is_not_taken(cells, skipped, way, said):
    choice = choose(report(*cells, skipped=skipped))
    assert choice.way == way
    assert said in choice.reason
    assert "2 CPUs, a CPU" in choice.reason


@pytest.mark.parametrize("way", threads.WAYS)
def test_a_choice_and_its_reason_take_the_place_of_the_ones_before(way, tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text(WRITTEN)
    expected = parsed(WRITTEN)
    for turn, other in enumerate(("instance a core", "no spinning", way, None)):
        threads.Choice(other, f"reason {turn}. " + "word " * 40).write(path)
    threads.WAYS[way].put(expected)
    text = path.read_text()
    assert parsed(text) == expected
    assert text.startswith(WRITTEN.split("instance_group [ { kind", maxsplit=1)[0])
    assert [turn for turn in range(4) if f"# Threads: reason {turn}." in text] == [3]
    assert max(map(len, text.splitlines())) <= 100
    # What is written is no other way any more.
    assert way not in candidates(parsed(text))
    assert len(candidates(parsed(text))) == len(threads.WAYS) - 1


def test_parameters_of_a_hand_are_replaced_and_others_stay(tmp_path):
    path = tmp_path / "config.pbtxt"
    own = 'parameters { key: "%s" value: { string_value: "%s" } }\n'
    path.write_text(WRITTEN + own % (COUNT, 3) + own % ("execution_mode", 1))
    threads.Choice("no spinning", "it pays").write(path)
    config = parsed(path.read_text())
    assert {key: one.string_value for key, one in config.parameters.items()} == {
        SPINNING: "0", "execution_mode": "1",
    }  # fmt: skip


def test_a_config_without_a_group_of_instances_gets_one(tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text('name: "m"')
    threads.Choice("default threads", "Triton runs two by itself").write(path)
    assert parsed(path.read_text()).instance_group[0].count == 1


def test_what_cannot_be_edited_is_left_and_told(tmp_path):
    path = tmp_path / "config.pbtxt"
    text = f'parameters [ {{ key: "{COUNT}" value: {{ string_value: "3" }} }} ]\n{WRITTEN}'
    path.write_text(text)
    with pytest.raises(InputError, match=r"write instead .*allow_spinning.*: it pays"):
        threads.Choice("no spinning", "it pays").write(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "groups", ["{ kind: KIND_GPU }", "{ count: 1 }, { count: 1 kind: KIND_CPU }"]
)
def test_a_gpu_and_several_groups_of_instances_are_refused_before_anything_runs(groups):
    with pytest.raises(InputError, match="expected m to have one instance_group, not on a GPU"):
        candidates(parsed(f'name: "m" instance_group [ {groups} ]'))
