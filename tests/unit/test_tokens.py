import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from exporters.training import architectures, datasets, tokens
from postprocess.errors import InputError

README = Path(__file__).parents[2] / "exporters" / "README.md"


def as_the_readme_says(text):
    """Return the ids of a text by the lines that clients are given."""
    (lines,) = re.findall(r"```python\n(words = .*?)```", README.read_text(), re.DOTALL)
    names = {"re": re, "zlib": zlib, "text": text}
    exec(lines, names)  # noqa: S102
    return names["ids"]


TEXTS = [
    "I think someone has hacked my card!", "", "?!", "a", "Żółw, ça va? 東京", "x" * 2000,
    "one two " * 300, "it's 5 o'clock",
]  # fmt: skip


def test_ids_are_those_of_the_lines_that_clients_are_given():
    made = tokens.ids(TEXTS)
    assert made.dtype == np.int64
    assert made.shape == (len(TEXTS), 512)
    for text, row in zip(TEXTS, made, strict=True):
        expected = as_the_readme_says(text)
        assert row.tolist() == expected + [0] * (512 - len(expected))
    assert made.max() <= tokens.BUCKETS
    assert tokens.ids(["", "?"]).tolist() == [[0], [0]]
    # Written down, as a client that made ids yesterday must be understood tomorrow.
    assert tokens.ids(["My card"]).tolist() == [[3726, 6356, 8035, 10123, 6356, 77]]


ROWS, LABELS = np.zeros((6, 3), np.float32), np.arange(6) % 2
GOOD = {
    "x_train": ROWS, "y_train": LABELS, "x_test": ROWS, "y_test": LABELS,
    "text_train": ["a b"] * 6, "text_test": ["a long one"] * 6,
}  # fmt: skip


def loaded(tmp_path, **changes):
    path = tmp_path / "texts.npz"
    arrays = {**GOOD, **changes}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return datasets.load(str(path))


def test_texts_are_seen_as_ids_by_the_network_that_reads_them_alone(tmp_path):
    dataset = loaded(tmp_path)
    assert architectures.default(dataset.input_shape) == "mlp"
    assert architectures.view("mlp", dataset) is dataset
    seen = architectures.view("tokens", dataset)
    assert seen.input_shape == (-1,)
    assert seen.x_train.shape[1] == seen.x_test.shape[1]
    assert np.trim_zeros(seen.x_test[0]).tolist() == as_the_readme_says("a long one")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text_train": None}, "holds no texts: expected text_train and text_test"),
        ({"text_test": ["a"] * 5}, "text_test: expected a string for each of 6 rows"),
        ({"text_train": np.arange(6)}, "text_train: expected a string for each of 6 rows"),
        (
            {"text_train": np.array(["a"] * 6, object)},
            "allow_pickle=False; make text of it: np.array(values, dtype=str)",
        ),
    ],
)
def test_texts_that_are_none_are_refused_in_one_line(tmp_path, changes, said):
    with pytest.raises(InputError) as error:
        architectures.view("tokens", loaded(tmp_path, **changes))
    assert said in str(error.value)
    assert str(tmp_path / "texts.npz") in str(error.value)
    assert "\n" not in str(error.value)


def test_the_network_of_texts_is_refused_where_rows_are_none():
    with pytest.raises(InputError, match=r"tokens: expected ids of texts, got 8 x 8; .* mlp"):
        architectures.find("tokens", (8, 8, 1))
    with pytest.raises(InputError, match="digits: holds no texts"):
        architectures.view("tokens", datasets.load("digits"))
