from collections import Counter
from types import SimpleNamespace

from tritonclient.utils import InferenceServerException

from deploy.supervision.traffic import QUIET_ROUNDS, RARE_ROUNDS, Traffic


class Triton:
    """Counts of one model, in two versions."""

    def __init__(self):
        self.success = self.fail = 0
        self.silent = False

    def get_inference_statistics(self, client_timeout):
        if self.silent:
            raise InferenceServerException("no answer")
        counts = [(self.success, self.fail), (0, 0)]
        return SimpleNamespace(
            model_stats=[
                SimpleNamespace(
                    name="m",
                    inference_stats=SimpleNamespace(
                        success=SimpleNamespace(count=good), fail=SimpleNamespace(count=bad)
                    ),
                )
                for good, bad in counts
            ]
        )


def rounds(traffic, triton, count, *, before_each=lambda: None):
    """Return in which rounds the model was asked; each question is answered."""
    asked, ours = [], Counter()
    for _ in range(count):
        before_each()
        traffic.look(triton, ours, timeout_s=1)
        ours = Counter()
        asked.append(traffic.is_due("m"))
        if asked[-1]:
            ours["m"] = 1
            triton.success += 1
    return asked


def test_a_model_that_nobody_else_asks_is_asked_in_every_tenth_round():
    asked = rounds(Traffic(), Triton(), 51)
    assert asked[:QUIET_ROUNDS] == [True] * QUIET_ROUNDS
    assert sum(asked[-4 * RARE_ROUNDS :]) == 4


def test_a_request_of_somebody_else_has_it_asked_in_every_round_again():
    triton, traffic = Triton(), Traffic()
    rounds(traffic, triton, 21)
    triton.success += 1
    assert rounds(traffic, triton, 5) == [True] * 5
    rounds(traffic, triton, 20)
    triton.fail += 1
    assert rounds(traffic, triton, 5) == [True] * 5


def test_an_answer_to_somebody_is_not_taken_for_our_own():
    triton, traffic = Triton(), Traffic()

    def one_more():
        triton.success += 1

    assert all(rounds(traffic, triton, 30, before_each=one_more))


def test_a_triton_that_does_not_tell_has_every_model_asked():
    triton, traffic = Triton(), Traffic()
    rounds(traffic, triton, 22)
    triton.silent = True
    assert all(rounds(traffic, triton, 12))
