"""Models that the gateway opens, and that are exchanged under the server's eyes."""

import shutil
import time

import pytest
from commands import SOON_S, wait_for_no_process_naming
from gateways import Gated, write_files
from serving import CLASSIFIER, DEFENCE

from exporters.files.atomic_file import write_text

#: A model in the defence's place that touches nothing, and takes long to load.
NOTHING = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        time.sleep(12)

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("scores", one.inputs()[0].as_numpy())])
            for one in requests
        ]
"""


def edited(repository, model, *pairs):
    config = repository / model / "config.pbtxt"
    text = config.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    write_text(config, text)


def another_output(repository):
    """Give out the victim's scores beside the protected ones."""
    edited(
        repository,
        "digits",
        ("output [", 'output [ { name: "raw" data_type: TYPE_FP32 dims: [ 10 ] },'),
        ('value: "victim_scores" }\n    },', 'value: "raw" }\n    },'),
        ('input_map { key: "victim_scores" value: "victim_scores" }',
         'input_map { key: "victim_scores" value: "raw" }'),
    )  # fmt: skip


def no_defence(repository):
    edited(repository, DEFENCE, ('string_value: "reverse_sigmoid"', 'string_value: "none"'))


def more_rows(repository):
    edited(repository, "digits", ("max_batch_size: 1\n", "max_batch_size: 256\n"))


def another_model(repository):
    """Put the bare classifier in the place of what was taken away a while ago."""
    shutil.rmtree(repository / "digits")
    time.sleep(3)
    shutil.copytree(repository / CLASSIFIER, repository / "new" / "digits")
    edited(repository / "new", "digits", (f'"{CLASSIFIER}"', '"digits"'))
    (repository / "new" / "digits").rename(repository / "digits")


def other_code(repository):
    write_text(repository / DEFENCE / "1" / "model.py", NOTHING)


@pytest.fixture
def gated(exported, tmp_path):
    repository = shutil.copytree(exported, tmp_path / "model_repository")
    edited(repository, "digits", ("max_batch_size: 256", "max_batch_size: 1"))
    rarely = ("--probe-seconds", 3600)  # what is edited is seen soon all the same
    with Gated(repository, write_files(tmp_path, tls=False), *rarely, cwd=tmp_path) as running:
        yield running
    wait_for_no_process_naming(repository)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_output, "no defence makes its output raw"),
        (no_defence, f"{DEFENCE} says defense none"),
        (another_model, "is no protected model of this repository; those are none"),
        (more_rows, "a request to digits may have 256 rows, and is counted as 1"),
        (other_code, "digits: UNPROTECTED: answered with "),
    ],
)
def test_what_a_gateway_would_not_have_opened_stops_it_when_it_comes_later(gated, change, said):
    change(gated.repository)
    assert gated.process.wait(SOON_S) == 1
    assert "reverse-sigmoid: " in gated.said
    assert "UNPROTECTED: " in gated.said
    assert said in gated.said
    assert "restarting Triton" not in gated.said  # with the gateway open before it was asked
