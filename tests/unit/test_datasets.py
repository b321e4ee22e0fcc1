import numpy as np
import pytest

from exporters.training import datasets
from postprocess.errors import InputError


def npz_arrays(*, count=30, shape=(28, 28), seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    return {"x_train": images, "y_train": labels, "x_test": images[:10], "y_test": labels[:10]}


def test_digits_are_the_real_ones_split_without_overlap():
    from sklearn.datasets import load_digits

    digits = datasets.load("digits")
    assert digits.input_shape == (8, 8, 1)
    assert digits.classes == 10
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert len(digits.x_test) == 359
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 1
    assert not digits.flips
    trained = {image.tobytes() for image in digits.x_train}
    assert not any(image.tobytes() in trained for image in digits.x_test)
    published = load_digits(return_X_y=True)
    label_of = {
        row.astype(np.float32).tobytes(): label for row, label in zip(*published, strict=True)
    }
    for images, labels in ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test)):
        assert [label_of[(16 * image).tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize(
    ("name", "shape", "flips"),
    [
        ("mnist", (28, 28), False),
        ("fashion_mnist", (28, 28), True),
        ("cifar10", (32, 32, 3), True),
        ("cifar100", (32, 32, 3), True),
    ],
)
def test_npz_files_of_a_data_dir_are_read(tmp_path, name, shape, flips):
    arrays = npz_arrays(shape=shape)
    # keras.datasets gives CIFAR's labels as a column.
    np.savez(tmp_path / f"{name}.npz", **{**arrays, "y_train": arrays["y_train"][:, None]})
    loaded = datasets.load(name, tmp_path)
    assert loaded.input_shape == (*shape[:2], shape[2] if len(shape) == 3 else 1)
    assert loaded.flips is flips
    assert loaded.y_train.tolist() == arrays["y_train"].tolist()
    assert loaded.x_train.dtype == np.float32
    assert np.allclose(loaded.x_train.reshape(30, *shape) * 255, arrays["x_train"])


def write_stl10(folder, pixels, labels):
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        # Published order: image, channel, column, row.
        pixels.transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")
        labels.tofile(folder / f"{split}_y.bin")


@pytest.mark.parametrize("inner", ["", "stl10_binary"])
def test_stl10_is_read_from_its_published_binary_files(tmp_path, inner):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    write_stl10(tmp_path / inner, pixels, np.array([1, 10, 3, 3], np.uint8))
    loaded = datasets.load("stl10", tmp_path)
    assert loaded.y_train.tolist() == [0, 9, 2, 2]
    assert np.allclose(loaded.x_test * 255, pixels)


def test_the_hold_off_is_a_third_of_each_class_rounded_up():
    digits = datasets.load("digits")
    split = datasets.hold_off(digits, seed=3)
    for label in range(10):
        count = (digits.y_train == label).sum()
        assert (split.victim_labels == label).sum() == count - -(-count // 3)
    assert len(split.victim_images) + len(split.adversary_images) == len(digits.x_train)
    kept = {image.tobytes() for image in split.victim_images}
    assert not any(image.tobytes() in kept for image in split.adversary_images)


def test_the_hold_off_of_cifar10_has_the_papers_16670_images():
    labels = np.repeat(np.arange(10), 5_000)
    images = np.zeros((50_000, 1, 1, 1), np.float32)
    dataset = datasets.Dataset("cifar10", images, labels, images[:1], labels[:1], flips=True)
    assert len(datasets.hold_off(dataset, seed=0).adversary_images) == 16_670


def test_the_hold_off_follows_its_seed():
    digits = datasets.load("digits")
    first, again, other = (datasets.hold_off(digits, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.adversary_images, again.adversary_images)
    assert not np.array_equal(first.adversary_images, other.adversary_images)


def refusal(name, data_dir=None):
    with pytest.raises(InputError) as error:
        datasets.load(name, data_dir)
    return str(error.value)


def test_what_cannot_be_loaded_is_refused_by_name(tmp_path):
    assert refusal("mnits") == (
        "unknown data set 'mnits'; known are digits, mnist, fashion_mnist, cifar10, cifar100, "
        "stl10 and files that end in .npz"
    )
    assert refusal("mnist", tmp_path / "absent") == (
        f"--data-dir {tmp_path / 'absent'}: no such folder"
    )
    assert refusal("mnist", tmp_path) == f"{tmp_path / 'mnist.npz'}: no such file"
    assert refusal(str(tmp_path / "own.npz")) == f"{tmp_path / 'own.npz'}: no such file"
    assert "stl10 needs --data-dir" in refusal("stl10")
    assert refusal("stl10", tmp_path).startswith(f"{tmp_path / 'train_X.bin'}: no such file")


def test_files_that_hold_something_else_are_refused(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **npz_arrays())
    for content in (b"not a zip", path.read_bytes()[:5000]):
        path.write_bytes(content)
        assert refusal("mnist", tmp_path).startswith(f"{path}: expected an .npz file of x_train")
    arrays = npz_arrays()
    np.savez(path, x_train=arrays["x_train"])
    assert "y_train" in refusal("mnist", tmp_path)
    np.savez(path, **{**arrays, "x_train": arrays["x_train"].astype(np.float32)})
    assert "expected uint8 images" in refusal("mnist", tmp_path)
    np.savez(path, **{**arrays, "y_train": arrays["y_train"][:5]})
    assert "expected uint8 images (n, height, width[, channels]) and n labels" in refusal(
        "mnist", tmp_path
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_train": np.arange(30.0)}, "expected whole numbers from 0 as labels"),
        ({"y_train": np.arange(30) - 1}, "expected whole numbers from 0 as labels"),
        ({"y_test": np.arange(10) + 100}, "the test set is not of the training set's shape"),
        ({"x_test": np.zeros((10, 20, 28), np.uint8)}, "the test set is not of the training"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.arange(0)}, "at least one"),
        (
            {"y_train": np.arange(30) + 65_507},
            "expected labels from 0 to 65535, got 65507 to 65536",
        ),
        ({"y_train": np.full(30, 2**63, np.uint64)}, "expected labels from 0 to 65535"),
        ({"x_train": np.zeros((30, 28, 0), np.uint8)}, "at least one of each, got (30, 28, 0, 1)"),
    ],
)
def test_labels_and_test_sets_that_do_not_fit_are_refused(tmp_path, changes, said):
    np.savez(tmp_path / "mnist.npz", **{**npz_arrays(), **changes})
    assert said in refusal("mnist", tmp_path)


GOOD = {
    "x_train": np.full((6, 4, 4, 1), 0.5, np.float32), "y_train": np.arange(6) % 3,
    "x_test": np.full((3, 4, 4, 1), 0.5, np.float32), "y_test": np.arange(3),
}  # fmt: skip


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("pixel", [np.nan, np.inf, -np.inf, -0.1, 1.1, 255])
def test_no_data_set_has_pixels_that_are_no_numbers_from_0_to_1(part, pixel):
    images = GOOD[f"x_{part}"].copy()
    images[-1, -1, -1] = pixel
    with pytest.raises(InputError, match=f"own: x_{part}, y_{part}: expected pixels from 0 to 1"):
        datasets.Dataset("own", **{**GOOD, f"x_{part}": images}, flips=False)
    assert datasets.Dataset("own", **GOOD, flips=False).classes == 3


def test_a_data_set_with_one_image_per_class_has_none_to_hold_off(tmp_path):
    np.savez(tmp_path / "mnist.npz", **npz_arrays(count=10))
    with pytest.raises(InputError, match="too few images per class"):
        datasets.hold_off(datasets.load("mnist", tmp_path), seed=0)


def test_stl10_files_of_another_size_are_refused(tmp_path):
    pixels = np.zeros((2, 96, 96, 3), np.uint8)
    write_stl10(tmp_path, pixels, np.array([1, 11], np.uint8))
    assert refusal("stl10", tmp_path) == (
        f"{tmp_path / 'train_y.bin'}: expected 2 labels from 1 to 10"
    )
    (tmp_path / "train_X.bin").write_bytes(b"123")
    assert "no whole number of images" in refusal("stl10", tmp_path)


def test_a_file_of_your_own_is_a_data_set(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 5, 4, 3), np.uint8), np.arange(30) % 3
    path = tmp_path / "own.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    own = datasets.load(str(path))
    assert own.input_shape == (5, 4, 3)
    assert own.classes == 3
    assert not own.flips
    assert np.array_equal(own.x_test, (images[:9] / 255).astype(np.float32))


def test_rows_of_features_are_images_of_one_row(tmp_path):
    rows, labels = np.arange(120, dtype=np.uint8).reshape(30, 4), np.arange(30) % 3
    path = tmp_path / "own.npz"
    np.savez(path, x_train=rows, y_train=labels, x_test=rows[:9], y_test=labels[:9])
    own = datasets.load(str(path))
    assert own.input_shape == (1, 4, 1)
    assert np.array_equal(own.x_train.reshape(30, 4), (rows / 255).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_features_are_rows_as_they_are(tmp_path, dtype):
    rows, labels = np.linspace(-3, 300, 120).astype(dtype).reshape(30, 4), np.arange(30) % 3
    path = tmp_path / "own.npz"
    np.savez(path, x_train=rows, y_train=labels, x_test=rows[:9], y_test=labels[:9])
    own = datasets.load(str(path))
    assert own.input_shape == (4,)
    assert own.x_train.dtype == np.float32
    assert np.array_equal(own.x_train, rows.astype(np.float32))
    assert datasets.hold_off(own, seed=0).adversary_images.shape == (12, 4)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_float_images_are_taken_as_they_are(tmp_path, shape):
    images, labels = np.random.default_rng(0).random((30, *shape)), np.arange(30) % 3
    path = tmp_path / "own.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    own = datasets.load(str(path))
    assert own.input_shape == (5, 4, shape[2] if len(shape) == 3 else 1)
    assert np.array_equal(own.x_train.reshape(images.shape), images.astype(np.float32))


def with_one(value, *, dtype=np.float32, shape=(30, 4)):
    """Return numbers from 0 to 1, one of which is another."""
    values = np.random.default_rng(0).random(shape).astype(dtype)
    values.flat[7] = value
    return values


ROWS = with_one(0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_train": with_one(np.nan)}, "x_train, y_train: expected features that are finite"),
        ({"x_test": with_one(-np.inf)}, "x_test, y_test: expected features that are finite"),
        ({"x_train": with_one(1e300, dtype=np.float64)}, "finite numbers of float32"),
        ({"x_train": ROWS[:29]}, "and n labels, or float images"),
        ({"x_train": ROWS[0]}, "got float32 (4,) and (30,)"),
        ({"x_train": ROWS[:, :0]}, "at least one of each, got (30, 0) and (30,)"),
        ({"x_test": ROWS[:, :3]}, "the test set is not of the training set's shape"),
        ({"x_test": ROWS.astype(np.uint8)}, "got float32 in x_train and uint8 in x_test"),
        ({"x_train": ROWS.astype(np.int64)}, "got int64 (30, 4)"),
        ({"x_train": ROWS.astype(object)}, "Object arrays cannot be loaded"),
        ({"y_train": np.arange(30) / 2}, "expected whole numbers from 0 as labels"),
        ({"x_train": with_one(255, shape=(30, 8, 8))}, "expected pixels from 0 to 1, finite "
         "numbers all, got 0.00019"),
        ({"x_train": with_one(np.nan, shape=(30, 8, 8))}, "got nan to nan"),
    ],
)  # fmt: skip
def test_features_and_float_images_that_are_none_are_refused_in_one_line(tmp_path, changes, said):
    path, labels = tmp_path / "own.npz", np.arange(30) % 3
    good = {"x_train": ROWS, "y_train": labels, "x_test": ROWS, "y_test": labels}
    np.savez(path, **{**good, **changes})
    message = refusal(str(path))
    assert said in message
    assert message.startswith(str(path))
    assert "\n" not in message
