"""The image data sets of the paper, scikit-learn's digits, and files of your own: one loader."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from exporters.training import tokens
from postprocess.errors import InputError

#: Images (n, height, width, channels) or features (n, F), float32; or ids of texts (n, T), int64.
Images = NDArray[Any]
Texts = NDArray[np.str_]
Labels = NDArray[np.int64]

#: Share of digits' samples that becomes its test set; scikit-learn publishes no split.
DIGITS_TEST_SHARE = 0.2
#: What a file of a data set holds, and may hold beside it: a text for each row.
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
TEXTS = ("text_train", "text_test")
#: Classes that a data set may have; a label beyond them is a mistake.
MOST_CLASSES = 65_536
_STL10 = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
#: One image in three of each class is never seen by the victim (section 4: "33%").
HOLD_OFF_ONE_IN = 3


@dataclass(frozen=True)
class Dataset:
    """A classification data set.

    Of images in [0, 1], shape (n, height, width, channels), of features, shape (n, F), or of ids.

    Raises:
        InputError: the arrays are none: empty, of two shapes, pixels out of range or no numbers,
            labels that are no classes.
    """

    name: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    #: Whether a mirrored image keeps its class. Not so for written digits (paper, section 4).
    flips: bool
    #: What the rows were made from, where that was texts: of the training set and of the test set.
    texts: tuple[Texts, Texts] | None = None

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("train", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            where = f"{self.name}: x_{part}, y_{part}"
            if images.ndim not in (2, 4) or labels.shape != (len(images),) or not images.size:
                raise InputError(
                    f"{where}: expected images (n, height, width, channels) or features (n, F), "
                    f"and n labels, at least one of each, got {images.shape} and {labels.shape}"
                )
            if images.ndim == 4 and not 0 <= images.min() <= images.max() <= 1:  # nor is NaN
                raise InputError(
                    f"{where}: expected pixels from 0 to 1, finite numbers all, "
                    f"got {images.min():g} to {images.max():g}"
                )
            if not np.isfinite(images).all():
                raise InputError(f"{where}: expected features that are finite numbers of float32")
            if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
                raise InputError(
                    f"{where}: expected labels from 0 to {MOST_CLASSES - 1}, got {labels.min()} to "
                    f"{labels.max()}"
                )
        for name, texts, labels in zip(
            TEXTS, self.texts or (), (self.y_train, self.y_test), strict=False
        ):
            if texts.dtype.kind != "U" or texts.shape != labels.shape:
                raise InputError(
                    f"{self.name}: {name}: expected a string for each of {len(labels)} rows, saved "
                    f"as np.array(texts, dtype=str), got {texts.dtype} {texts.shape}"
                )
        if self.x_test.shape[1:] != self.x_train.shape[1:] or self.y_test.max() >= self.classes:
            raise InputError(
                f"{self.name}: the test set is not of the training set's shape and classes: "
                f"expected rows of {self.x_train.shape[1:]} and labels below {self.classes}, got "
                f"{self.x_test.shape[1:]} and {self.y_test.max()}"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of images, (F,) of features, (-1,) of ids: any number."""
        return (-1,) if self.x_train.dtype == np.int64 else self.x_train.shape[1:]

    @property
    def classes(self) -> int:
        """The number of classes, K."""
        return int(self.y_train.max()) + 1

    def of_texts(self) -> "Dataset":
        """Return the same data set with the ids of its texts as rows.

        Raises:
            InputError: it has no texts.
        """
        if self.texts is None:
            raise InputError(
                f"{self.name}: holds no texts: expected text_train and text_test, arrays of strings"
            )
        rows = tokens.ids(np.concatenate(self.texts))
        x_train, x_test = np.split(rows, [len(self.y_train)])
        return replace(self, x_train=x_train, x_test=x_test)

    @cached_property
    def digest(self) -> str:
        """A hash of all of it, by which it is known to be the same."""
        found = hashlib.blake2b(digest_size=16)
        for part in (self.x_train, self.y_train, self.x_test, self.y_test):
            found.update(np.ascontiguousarray(part).data)
        return found.hexdigest()


@dataclass(frozen=True)
class HoldOff:
    """The paper's split of a training set: what the victim learns from, what the adversary has."""

    victim_images: Images
    victim_labels: Labels
    adversary_images: Images  #: without labels: the adversary has to ask


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Return a data set by name.

    Args:
        name: one of ``NAMES``, or an .npz file of your own, here or in ``data_dir``. ``digits``
            comes with scikit-learn; the others are read from ``data_dir`` and, without one,
            fetched through ``keras.datasets``.
        data_dir: a folder of ``<name>.npz`` files with the arrays x_train, y_train, x_test,
            y_test (``keras.datasets``' own shapes), or of STL-10's published binary files,
            in it or in its folder ``stl10_binary``.

    Raises:
        InputError: the name is unknown, a file is missing, or it does not hold what it must.
    """
    if name not in SOURCES and not name.endswith(".npz"):
        raise InputError(
            f"unknown data set {name!r}; known are {', '.join(NAMES)} and files that end in .npz"
        )
    refuse_missing(data_dir)
    return SOURCES.get(name, _own)(name, data_dir)


def files(name: str, data_dir: Path | None) -> list[Path]:
    """Return the files that ``load`` reads; none of what comes with a package or is fetched."""
    if name.endswith(".npz"):
        return [_own_path(name, data_dir)]
    if data_dir is None or name == "digits":
        return []
    return _stl10_files(data_dir) if name == "stl10" else [data_dir / f"{name}.npz"]


def public_name(name: str) -> str:
    """Return what a model of a data set is called, where nobody says: a file's name, bare."""
    return Path(name).name.removesuffix(".npz")


def refuse_missing(data_dir: Path | None) -> None:
    """Refuse a folder of data sets that is not there.

    Raises:
        InputError: there is no such folder.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"--data-dir {data_dir}: no such folder")


def of_arrays(name: str, arrays: Sequence[NDArray[Any]], *, flips: bool) -> Dataset:
    """Return a data set of x_train, y_train, x_test and y_test as they are stored.

    Raises:
        InputError: they are no images or features, and labels.
    """
    _refuse_unlike(name, *arrays)
    x_train, y_train, x_test, y_test = arrays
    return Dataset(
        name,
        _as_images(x_train),
        y_train.reshape(-1).astype(np.int64),
        _as_images(x_test),
        y_test.reshape(-1).astype(np.int64),
        flips=flips,
    )


def _refuse_unlike(name: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> None:
    """Refuse arrays that are no images or features, and labels, as they are stored."""
    for images, labels in ((x_train, y_train), (x_test, y_test)):
        known = images.dtype == np.uint8 or images.dtype.kind == "f"
        if not known or images.ndim not in (2, 3, 4) or len(images) != labels.size:
            raise InputError(
                f"{name}: expected uint8 images (n, height, width[, channels]) and n labels, or "
                "float images from 0 to 1, or float or uint8 rows of features (n, F), got "
                f"{images.dtype} {images.shape} and {labels.shape}"
            )
        if (images.dtype == np.uint8) != (x_train.dtype == np.uint8):
            raise InputError(
                f"{name}: expected uint8 images or features in both parts, or floats in both, "
                f"got {x_train.dtype} in x_train and {images.dtype} in x_test"
            )
        if labels.size == 0 or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise InputError(f"{name}: expected whole numbers from 0 as labels, at least one")


def hold_off(dataset: Dataset, *, seed: int) -> HoldOff:
    """Return the training set split per class: ceil(n / 3) of each class for the adversary.

    Uniformly at random within each class, as the paper's section 4 has it ("we randomly hold
    off 33% of the original training data, uniformly from each class"); with ceil, CIFAR-10
    yields the 16,670 pairs of its section 4.4. Both parts keep the data set's order.

    Raises:
        InputError: nothing is left for the victim.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(dataset.y_train), bool)
    for label in range(dataset.classes):
        members = np.flatnonzero(dataset.y_train == label)
        held[rng.permutation(members)[: -(-len(members) // HOLD_OFF_ONE_IN)]] = True
    if held.all():
        raise InputError(
            f"{dataset.name}: too few images per class to set a third aside: expected at least 2 "
            "of some class"
        )
    return HoldOff(dataset.x_train[~held], dataset.y_train[~held], dataset.x_train[held])


def _digits() -> Dataset:
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(name="sklearn")
    # The file that sklearn.datasets reads: to import that takes a second.
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, delimiter=",")
    images = (rows[:, :-1].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    labels = rows[:, -1].astype(np.int64)
    # Fixed, whatever the seed of an experiment: results are compared on one test set.
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = np.split(order, [round(len(labels) * DIGITS_TEST_SHARE)])
    return Dataset("digits", images[train], labels[train], images[test], labels[test], flips=False)


def _read_npz(path: Path, names: Sequence[str] = ARRAYS) -> list[NDArray[Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[key] for key in names]
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile, zlib.error) as error:
        hint = "; make text of it: np.array(values, dtype=str)" if "pickle" in str(error) else ""
        raise InputError(
            f"{path}: expected an .npz file of {', '.join(names)}: {error}{hint}"
        ) from None
    return arrays


def _own_path(name: str, data_dir: Path | None) -> Path:
    """Return where a file of one's own is: as it is named, or in the folder."""
    path = Path(name)
    in_folder = [] if data_dir is None else [data_dir / name, data_dir / path.name]
    return next((one for one in (path, *in_folder) if one.is_file()), path)


def _own(name: str, data_dir: Path | None) -> Dataset:
    path = _own_path(name, data_dir)
    made = of_arrays(name, _read_npz(path), flips=False)
    with np.load(path, allow_pickle=False) as stored:
        if not set(TEXTS) <= set(stored.files):
            return made
    text_train, text_test = _read_npz(path, TEXTS)
    return replace(made, texts=(text_train, text_test))


def _published(name: str, data_dir: Path | None, *, flips: bool = True) -> Dataset:
    arrays = _fetch(name) if data_dir is None else _read_npz(data_dir / f"{name}.npz")
    return of_arrays(name, arrays, flips=flips)


def _stl10(name: str, data_dir: Path | None) -> Dataset:
    return of_arrays(name, _read_stl10(data_dir), flips=True)


def _fetch(name: str) -> list[NDArray[Any]]:
    import keras.datasets

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises no narrower one when it cannot download
        raise InputError(f"{name}: cannot be downloaded ({error}); give --data-dir") from None
    return [x_train, y_train, x_test, y_test]


def _stl10_files(data_dir: Path) -> list[Path]:
    folder = data_dir / "stl10_binary" if (data_dir / "stl10_binary").is_dir() else data_dir
    return [folder / name for name in _STL10]


def _read_stl10(data_dir: Path | None) -> list[NDArray[Any]]:
    """STL-10's binary files: 96 x 96 x 3 uint8, each channel column by column; labels 1 to 10."""
    if data_dir is None:
        raise InputError(f"stl10 needs --data-dir with its published files {', '.join(_STL10)}")
    arrays: list[NDArray[Any]] = []
    for path in _stl10_files(data_dir):
        if not path.is_file():
            raise InputError(f"{path}: no such file; --data-dir must hold STL-10's binary files")
        stored = np.fromfile(path, np.uint8)
        if path.name.endswith("_X.bin"):
            if stored.size % (96 * 96 * 3):
                raise InputError(
                    f"{path}: {stored.size} bytes are no whole number of images of 96 x 96 x 3"
                )
            stored = stored.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
        else:
            if stored.size != len(arrays[-1]) or not np.isin(stored, np.arange(1, 11)).all():
                raise InputError(f"{path}: expected {len(arrays[-1])} labels from 1 to 10")
            stored = stored - np.uint8(1)
        arrays.append(stored)
    return arrays


def _as_images(stored: NDArray[Any]) -> Images:
    with np.errstate(over="ignore"):  # the data set refuses what is no number then
        images = stored.astype(np.float32)
    if stored.dtype == np.uint8:
        images /= 255
        if images.ndim == 2:  # as images of one row
            images = images[:, None]
    return images[..., None] if images.ndim == 3 else images


#: How each is read, given its name and the folder of the data sets' files.
SOURCES: dict[str, Callable[[str, Path | None], Dataset]] = {
    "digits": lambda *_: _digits(),
    "mnist": partial(_published, flips=False),
    "fashion_mnist": _published,
    "cifar10": _published,
    "cifar100": _published,
    "stl10": _stl10,
}
NAMES = tuple(SOURCES)
