import json
import shutil
from functools import partial

import numpy as np
import pytest

from exporters.files.alone import alone
from exporters.training import datasets
from load_tests.data.drawn import draw_from
from load_tests.stealing import attack_record
from load_tests.stealing.attack_record import AttackRecord
from load_tests.stealing.campaign import Campaign, CampaignSettings
from load_tests.stealing.collect import Manner
from load_tests.stealing.thief import Thief
from postprocess.errors import InputError

DIGITS = datasets.load("digits")
SAMPLE, DUPLICATES = Thief(attack="sample"), Thief(attack="duplicates")
SETTINGS = CampaignSettings(
    url="127.0.0.1:8001", model="digits", victim="", data="digits", queries=80, seed=3,
    architecture="mlp", steps=1, beta=1, gamma=1, margin=0,
)  # fmt: skip


def campaign(out, asked, settings=SETTINGS, asked_victim=None):
    def answer(images, counted=asked):
        counted.append(len(images))
        ink = images.reshape(len(images), 8, 8).sum(axis=1) + 0.1
        return np.repeat(ink / ink.sum(axis=1, keepdims=True), 2, axis=1)[:, :10].astype(np.float32)

    return Campaign(
        out,
        settings,
        drawn=draw_from("digits", None, 0),
        protected=answer,
        victim=None if asked_victim is None else partial(answer, counted=asked_victim),
        manner=Manner(),
    )


@pytest.mark.slow
def test_a_transfer_set_says_what_attack_it_is_of(tmp_path):
    campaign(tmp_path / "out", []).run([SAMPLE], [80])
    record = attack_record.read(tmp_path / "out" / "sample")
    assert record == AttackRecord(
        attack="sample", data="digits", data_dir=None, split_seed=0, seed=3, queries=80,
        url="127.0.0.1:8001", model="digits", architecture="mlp",
    )  # fmt: skip


def test_a_folder_of_an_earlier_version_is_gone_on_with_and_asks_nothing_twice(tmp_path):
    out, asked = tmp_path / "out", []
    first = campaign(out, asked).run([SAMPLE], [80])
    rows = (out / "sample" / "transfer_set.csv").read_text()
    # Earlier versions called the settings attack.json, and put nothing beside a transfer set.
    (out / "campaign.json").rename(out / "attack.json")
    (out / "sample" / "attack.json").unlink()
    asked.clear()
    again = campaign(out, asked).run([SAMPLE, DUPLICATES], [80])
    assert again[:1] == first
    assert sum(asked) == 80  # the other attack's
    assert (out / "sample" / "transfer_set.csv").read_text() == rows
    assert attack_record.read(out / "sample").attack == "sample"
    with pytest.raises(InputError, match="holds an attack with queries 80, not 81; choose"):
        campaign(out, [], CampaignSettings(**vars(SETTINGS) | {"queries": 81}))


def test_the_folder_of_one_transfer_set_is_no_campaigns_and_is_kept(tmp_path):
    campaign(tmp_path / "out", []).run([SAMPLE], [80])
    single = tmp_path / "sample-0-0"
    shutil.copytree(tmp_path / "out" / "sample", single)
    before = sorted(path.name for path in single.iterdir())
    with pytest.raises(InputError, match="holds other files; choose another folder"):
        campaign(single, [])
    assert sorted(path.name for path in single.iterdir()) == before
    assert json.loads((single / "attack.json").read_text())["attack"] == "sample"


def test_the_victim_is_asked_once_for_what_several_thieves_learn_of_it(tmp_path):
    asked, asked_victim = [], []
    fitted = [Thief(attack="sample", recover=name) for name in ("linear", "mlp")]
    results = campaign(tmp_path / "out", asked, asked_victim=asked_victim).run(fitted, [40, 80])
    assert sum(asked) == sum(asked_victim) == 80 + len(DIGITS.x_test)
    assert len(results) == 4


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("results/random-80.json", b"{", "expected what a thief stole; move the file away"),
        ("results/random-80.json", b"[]", "expected what a thief stole; move the file away"),
        ("reference.npz", b"PK", "expected answers to the test set; give another --out"),
        ("random/requests.log", b"sent 1 x\n", "line 1 is no line of what was sent"),
        ("random/transfer_set.csv", b"\xff\n", "is no transfer set"),
        ("random/made_inputs.f32", b"", "has an answer to made:79, but made_inputs.f32 holds 0"),
    ],
)
def test_a_damaged_file_of_a_folder_is_named(tmp_path, file, damage, said):
    thieves = [Thief(attack="random")]
    campaign(tmp_path, []).run(thieves, [80])
    (tmp_path / file).write_bytes(damage)

    def go_on():
        again = campaign(tmp_path, [])
        again.ask_again()
        again.run([*thieves, Thief(attack="random", labels_only=True)], [80])
        again.results()

    with pytest.raises(InputError, match=said) as refused:
        go_on()
    assert str(tmp_path) in str(refused.value)


def test_two_processes_never_ask_for_one_folder(tmp_path):
    asked = []
    with alone(tmp_path), pytest.raises(InputError, match="another process is at work there; wait"):
        campaign(tmp_path, asked).run([SAMPLE], [80])
    assert not asked


def test_nothing_is_paid_for_where_a_thief_cannot_do_without_the_victim(tmp_path):
    asked = []
    fitted = Thief(attack="sample", recover="linear")
    with pytest.raises(InputError, match="--recover linear: needs --victim, the model without a"):
        campaign(tmp_path, asked).run([SAMPLE, fitted], [80])
    assert not asked
