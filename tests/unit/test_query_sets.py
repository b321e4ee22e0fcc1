import numpy as np
import pytest

from load_tests.data import query_sets, tensors
from load_tests.data.drawn import draw_from
from load_tests.data.rows import InputRows, features, joined_rows
from load_tests.data.tensors import Taken
from postprocess.errors import InputError

IDS = np.arange(60).reshape(20, 3)
TEXT = np.array([f"größe {row}" for row in range(20)])
LEARNT = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float16)
INPUTS = [
    Taken("ids", "INT32", np.dtype(np.int32), (-1, -1)),
    Taken("text", "BYTES", np.dtype(object), (-1, 1)),
]


def file(folder, **arrays):
    np.savez(folder / "rows.npz", **arrays)
    return folder / "rows.npz"


def test_every_input_gets_its_array_of_the_models_type_and_shape(tmp_path):
    read = query_sets.read(file(tmp_path, ids=IDS, text=TEXT, features=LEARNT))
    tensors.refuse_misfits(INPUTS, read.rows, where="m")
    sent = tensors.arrays(INPUTS, read.rows[3:5], where="m")
    assert sent["ids"].dtype == np.int32
    assert sent["ids"].tolist() == IDS[3:5].tolist()
    assert sent["text"].tolist() == [["größe 3".encode()], ["größe 4".encode()]]
    assert features(read.rows).dtype == np.float32
    assert np.array_equal(features(read.rows), LEARNT.astype(np.float32))
    assert read.labels is None


def test_floats_of_a_single_input_are_their_own_features_and_stay_an_array(tmp_path):
    read = query_sets.read(file(tmp_path, embedding=LEARNT, labels=np.arange(20)))
    assert isinstance(read.rows, np.ndarray)
    assert list(read.inputs) == ["embedding"]
    named = [Taken("vector", "FP32", np.dtype(np.float32), (-1, 4))]
    with pytest.raises(InputError, match="m: the query set has no array for input vector"):
        tensors.refuse_misfits(named, read.rows, named=list(read.inputs), where="m")
    called_so = query_sets.read(file(tmp_path, features=LEARNT))
    assert list(called_so.inputs) == ["features"]


def test_one_row_in_five_is_held_out_by_the_seed_and_each_row_is_on_one_side(tmp_path):
    path = str(file(tmp_path, ids=IDS, features=LEARNT, labels=np.arange(20)))
    drawn = draw_from("", None, 7, path)
    assert (len(drawn.pool), len(drawn.test)) == (16, 4)
    both = joined_rows([drawn.pool, drawn.test])
    assert isinstance(both, InputRows)
    assert sorted(both.inputs["ids"][:, 0]) == IDS[:, 0].tolist()
    assert drawn.labels.tolist() == (drawn.test.inputs["ids"][:, 0] // 3).tolist()
    other = draw_from("", None, 8, path)
    assert not np.array_equal(drawn.test.inputs["ids"], other.test.inputs["ids"])
    whole = draw_from("", None, 7, path, path)
    assert len(whole.pool) == len(whole.test) == 20


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "expected an array for each input of the model"),
        ({"ids": IDS}, "inputs ids int64 are no features to learn from: add an array features"),
        ({"ids": IDS, "features": LEARNT[:9]}, "features: expected 20 rows, as ids has, got 9"),
        ({"ids": IDS, "features": IDS}, "features: expected features, finite floats of shape"),
        ({"x": LEARNT * np.nan}, "x: expected features, finite floats of shape"),
        ({"x": LEARNT, "labels": LEARNT}, "labels: expected the true classes, whole numbers"),
        ({"x": LEARNT, "labels": -np.arange(20)}, "labels: expected the true classes"),
        ({"x": LEARNT, "labels": np.arange(19)}, "labels: expected 20 rows, as x has, got 19"),
        ({"x": LEARNT + 1j}, "x: expected numbers, booleans or text, at least one row, got comp"),
        ({"x": LEARNT[:0]}, "x: expected numbers, booleans or text, at least one row, got float"),
        ({"x": np.array([None, "a"])}, "x: expected numbers, or text as an array of str or bytes"),
    ],
)
def test_a_file_that_is_no_query_set_is_refused_in_one_line(tmp_path, arrays, said):
    with pytest.raises(InputError) as refused:
        query_sets.read(file(tmp_path, **arrays))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": None}, "m: the query set has no array for input text; it takes ids INT32, text"),
        ({"more": IDS}, "m: has no input more, an array of the query set; it takes ids INT32"),
        ({"ids": IDS / 2}, "m: input ids is INT32: expected whole numbers, got float64"),
        ({"ids": IDS.astype(str)}, "m: input ids is INT32: expected whole numbers, got str"),
        ({"text": IDS}, "m: input text is BYTES: expected text, got int64"),
        ({"ids": IDS + 2**40}, "m: input ids is INT32, which does not hold values such as 10995"),
        ({"ids": IDS[:, 0]}, None),
        ({"text": np.stack([TEXT] * 2, 1)}, r"m: input text: expected rows of shape [1], got [2]"),
    ],
)
def test_rows_that_a_model_does_not_take_are_refused_in_one_line(tmp_path, changes, said):
    arrays = {"ids": IDS, "text": TEXT, "features": LEARNT, **changes}
    arrays = {name: values for name, values in arrays.items() if values is not None}
    rows = query_sets.read(file(tmp_path, **arrays)).rows
    if said is None:  # one id for each row is a row of one
        tensors.refuse_misfits(INPUTS, rows, where="m")
        return
    with pytest.raises(InputError) as refused:
        tensors.refuse_misfits(INPUTS, rows, where="m")
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_test_set_of_other_arrays_is_refused(tmp_path):
    path = str(file(tmp_path, ids=IDS, features=LEARNT))
    (tmp_path / "test").mkdir()
    test = str(file(tmp_path / "test", ids=IDS, features=LEARNT[:, :2]))
    with pytest.raises(InputError, match=r"--test-set .*: expected the query set's arrays, ids"):
        draw_from("", None, 0, path, test)
