import signal
import threading
import time

import numpy as np
import pytest

from load_tests.asking.deferred_signals import deferred_signals
from load_tests.asking.endpoint import EndpointError
from load_tests.stealing.attacks.random_images import random_images
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Manner, collect
from load_tests.stealing.transfer_set import TransferSet
from load_tests.stealing.transfer_set_file import TransferSetFile
from postprocess.errors import InputError

POOL = np.random.default_rng(0).random((200, 2, 3, 1)).astype(np.float32)
MANNER = Manner(batch_size=8, retry_after_s=0.001)


def scores_of(images):
    flat = images.reshape(len(images), -1)
    return (flat[:, :4] / flat[:, :4].sum(axis=1, keepdims=True)).astype(np.float32)


class Victim:
    """Answers, and counts; may fail at the requests of some numbers, from 1."""

    def __init__(self, failures=None):
        self.asked, self.most_at_once = [], 0
        self._failures, self._requests, self._at_once = failures or {}, 0, 0
        self._lock = threading.Lock()

    def __call__(self, images):
        with self._lock:
            self._requests += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            failure = self._failures.get(self._requests)
        try:
            time.sleep(0.001)
            if failure is not None:
                raise failure
            with self._lock:
                self.asked.append(images)
            return scores_of(images)
        finally:
            with self._lock:
                self._at_once -= 1

    @property
    def images(self):
        return np.concatenate([POOL[:0], *self.asked])


def plan(kind="sample", budget=100):
    rng = np.random.default_rng(5)
    attacks = {"sample": sample, "random": random_images}
    return attacks[kind](POOL, budget=budget, rng=rng)


def rows(images):
    return {tuple(image.reshape(-1).tolist()) for image in images}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_budget_is_sent_in_batches_and_answers_come_back_in_order(concurrency):
    victim = Victim()
    manner = Manner(batch_size=8, concurrency=concurrency)
    taken = collect(plan(), victim, manner=manner)
    assert sorted(map(len, victim.asked)) == [4] + [8] * 12
    assert victim.most_at_once <= concurrency
    assert np.array_equal(taken.scores, scores_of(taken.rows))
    assert np.array_equal(taken.rows, collect(plan(), Victim()).rows)


@pytest.mark.parametrize("kind", ["sample", "random"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_interrupted_attack_sends_exactly_the_rest_and_ends_as_if_it_never_was(
    tmp_path, kind, concurrency
):
    manner = Manner(batch_size=8, concurrency=concurrency)
    first, second = Victim({6: KeyboardInterrupt()}), Victim()
    with pytest.raises(KeyboardInterrupt):
        collect(plan(kind), first, manner=manner, file=TransferSetFile(tmp_path, POOL))
    assert 0 < len(first.images) < 100
    taken = collect(plan(kind), second, manner=manner, file=TransferSetFile(tmp_path, POOL))
    # The request that the interrupt itself took down was sent, and is not sent again.
    assert len(first.images) + len(second.images) == 100 - 8
    assert not rows(first.images) & rows(second.images)
    assert len(taken) == 92
    assert np.array_equal(taken.scores, scores_of(taken.rows))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_an_answer_and_its_row_takes_no_answer_along(
    tmp_path, monkeypatch, number
):
    def stop(*_):
        raise InterruptedError

    class Interrupted(TransferSetFile):
        def append(self, *row):
            if self.spent >= 20:
                signal.raise_signal(number)  # once: the second is not deferred
                monkeypatch.setattr(Interrupted, "append", TransferSetFile.append)
            super().append(*row)

    before = signal.signal(number, stop)
    try:
        first, second = Victim(), Victim()
        file = Interrupted(tmp_path, POOL)
        with pytest.raises(InterruptedError):
            collect(plan(), first, manner=MANNER, file=file, guard=deferred_signals)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert 20 < len(first.images) < 100
    file = TransferSetFile(tmp_path, POOL)
    assert (file.spent, file.lost) == (len(first.images), 0)
    taken = collect(plan(), second, manner=MANNER, file=file, guard=deferred_signals)
    assert len(first.images) + len(second.images) == len(taken) == 100


def test_what_was_sent_when_the_process_was_killed_is_paid_for_and_not_sent_again(tmp_path):
    file = TransferSetFile(tmp_path, POOL)
    collect(plan(budget=50), Victim(), manner=MANNER, file=file)
    path = tmp_path / "transfer_set.csv"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:41]) + whole[41][:7])  # 10 rows lost, one of them half
    again = TransferSetFile(tmp_path, POOL)
    assert again.lost == 10
    assert again.spent == 50
    victim = Victim()
    taken = collect(plan(budget=60), victim, manner=MANNER, file=again)
    assert len(victim.images) == 10
    assert len(taken) == 50


def test_a_failed_request_is_sent_again_a_few_times(tmp_path):
    failures = {number: EndpointError("down", "UNAVAILABLE") for number in (3, 4, 9)}
    victim = Victim(failures)
    file = TransferSetFile(tmp_path, POOL)
    assert len(collect(plan(), victim, manner=MANNER, file=file)) == 100
    assert len(rows(victim.images)) == len(victim.images) == 100


@pytest.mark.parametrize(("status", "requests"), [("UNAVAILABLE", 5), ("INVALID_ARGUMENT", 1)])
def test_a_server_that_goes_on_failing_ends_the_attack_and_a_later_one_goes_on(
    tmp_path, status, requests
):
    failures = {number: EndpointError("no", status) for number in range(4, 4 + requests)}
    victim = Victim(failures)
    with pytest.raises(EndpointError, match="no"):
        collect(plan(), victim, manner=MANNER, file=TransferSetFile(tmp_path, POOL))
    assert victim._requests == 3 + requests
    taken = collect(plan(), victim, manner=MANNER, file=TransferSetFile(tmp_path, POOL))
    assert len(rows(victim.images)) == len(victim.images) == len(taken) == 100


@pytest.mark.parametrize("kind", ["sample", "random"])
def test_the_file_is_what_its_documentation_says(tmp_path, kind):
    import pandas

    before = time.time()
    taken = collect(plan(kind), Victim(), manner=MANNER, file=TransferSetFile(tmp_path, POOL))
    table = pandas.read_csv(tmp_path / "transfer_set.csv").sort_values("query")
    assert list(table["query"]) == list(range(100))
    scores = table[[f"score_{k}" for k in range(4)]].to_numpy(np.float32)
    assert np.array_equal(scores, taken.scores)
    assert list(table["top1"]) == list(taken.scores.argmax(axis=1))
    assert table["sent_at"].between(before, time.time()).all()
    assert (table["latency_ms"] >= 1).all()
    index = table["input"].str.split(":").str[1].astype(int).to_numpy()
    images = POOL
    if kind == "random":
        images = np.memmap(tmp_path / "made_inputs.f32", "<f4").reshape(-1, *POOL.shape[1:])
    assert set(table["input"].str.split(":").str[0]) == {"pool" if kind == "sample" else "made"}
    assert np.array_equal(images[index], taken.rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_transfer_set_holds_what_is_not_finite(value):
    images, scores = POOL[:2].copy(), np.full((2, 4), 0.25, np.float32)
    assert len(TransferSet(images, scores)) == 2
    with pytest.raises(InputError, match="scores for each of 1 rows"):
        TransferSet(images[:1], scores)
    scores[1, 2] = value
    with pytest.raises(InputError, match="transfer set: scores: expected finite numbers"):
        collect(plan(), lambda asked: np.repeat(scores[1:], len(asked), axis=0))
    images[1, 0, 0] = value
    with pytest.raises(InputError, match="transfer set: rows: expected finite numbers"):
        TransferSet(images, scores_of(POOL[:2]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "is no transfer set"),
        ("query,input,sent_at,latency_ms,top1,score_0,score_1\nx\n", "line 2 is no row"),
        (
            "query,input,sent_at,latency_ms,top1,score_0,score_1\n0,pool:7,1,1,0,1,nan\n",
            "line 2: expected finite scores",
        ),
        (
            "query,input,sent_at,latency_ms,top1,score_0,score_1\n0,pool:7000,1,1,0,1,0\n",
            "line 2: pool:7000, but the adversary has 200 rows",
        ),
    ],
)
def test_another_file_of_that_name_is_refused_and_kept(tmp_path, text, said):
    path = tmp_path / "transfer_set.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        TransferSetFile(tmp_path, POOL)
    assert path.read_text() == text
