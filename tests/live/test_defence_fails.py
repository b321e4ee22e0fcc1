import numpy as np
import pytest
from ports import free_ports

from deploy.triton.server import TritonServer
from exporters.training import datasets
from load_tests.asking.endpoint import Endpoint, EndpointError

BROKEN_MODEL_PY = """
from postprocess.postprocessor import ProtectedRows
from postprocess.triton_model import TritonPythonModel as Whole


class TritonPythonModel(Whole):
    def initialize(self, args):
        super().initialize(args)
        self.postprocessor.protect = protect


def protect(scores):
    {body}
"""


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError(str(scores))",
        "return ProtectedRows(scores[:0], 0)",
        "return ProtectedRows(scores * float('nan'), 0)",
        "return ProtectedRows(scores.astype('f8'), 0)",
        "return scores",
    ],
)
def test_a_defence_that_breaks_answers_with_an_error_and_no_scores(repository, tmp_path, body):
    model = repository / "digits_reverse_sigmoid" / "1" / "model.py"
    model.write_text(BROKEN_MODEL_PY.format(body=body))
    images = datasets.load("digits").x_test[:2]
    with (
        TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as server,
        Endpoint(server.grpc_url, "digits") as endpoint,
        Endpoint(server.grpc_url, "digits_classifier") as victim,
    ):
        with pytest.raises(EndpointError) as refusal:
            endpoint(images)
        assert np.isfinite(victim(images)).all()
    assert str(refusal.value).endswith(
        "[StatusCode.INTERNAL] in ensemble 'digits', digits_reverse_sigmoid: internal error, "
        "see the server's log"
    )
