"""The networks that are stolen: trained once, their answers kept."""

import json
import zlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from exporters.files.atomic_file import atomic_file, write_arrays, write_json
from exporters.training import architectures, datasets
from exporters.training.datasets import Dataset, HoldOff, Images
from exporters.training.train import predict, train_victim
from load_tests.data.drawn import Drawn, digest
from load_tests.data.rows import features
from load_tests.runs.conditions import made_with
from load_tests.runs.run import Victim
from postprocess.errors import InputError

Logits = NDArray[np.float32]
#: What a recorded victim was asked about, where that is no data set: pool, test and maybe labels.
ROWS = "rows.npz"
#: Not HDF5, which ends the process where a disk is full.
_WEIGHTS = "weights.npz"
#: What victims of earlier versions have instead.
_OF_BEFORE = "victim.weights.h5"
#: The file that is written when all others are there.
_LAST = "victim.json"


class TrainedVictim:
    """A victim in a folder of its own: weights, and its logits for what everyone asks about."""

    def __init__(self, victim: Victim, folder: Path, data_dir: Path | None) -> None:
        """Take the victim from the folder; ``prepare_victim`` has put it there."""
        self.victim, self._folder = victim, folder / victim.name
        self._data_dir = data_dir
        rows = self._folder / ROWS
        if rows.is_file():
            with np.load(rows) as stored:
                self.drawn = Drawn(stored["pool"], stored["test"], stored.get("labels"))
            self.data_digest = digest(self.drawn.test)
        else:
            dataset = _dataset(victim.data, data_dir)
            held_off = _held_off(victim.data, data_dir, victim.seed)
            pool, labels = held_off.adversary_images, dataset.y_test
            self.drawn = Drawn(pool, dataset.x_test, labels, dataset.flips)
            self.data_digest = dataset.digest

    @property
    def made_with(self) -> dict[str, Any] | None:
        """What it was trained with, see ``conditions``; None where it was recorded."""
        content = json.loads((self._folder / _LAST).read_text())
        found: dict[str, Any] | None = content.get("made_with")
        return found

    @property
    def digest(self) -> str:
        """A hash of what it answers, see ``answers_digest``."""
        return _digest(self.test_logits, self.pool_logits)

    @property
    def pool(self) -> Images:
        """What the adversary learns from, which the victim has not seen."""
        return features(self.drawn.pool)

    @cached_property
    def test_logits(self) -> Logits:
        """For the test set, shape (n, K)."""
        return _kept(self._folder, "test")

    @cached_property
    def pool_logits(self) -> Logits:
        """For the adversary's rows, shape (n, K)."""
        return _kept(self._folder, "pool")

    def logits(self, images: Images) -> Logits:
        """Return the victim's logits for any images, shape (n, K)."""
        return predict(self._model, images)

    @cached_property
    def _model(self) -> Any:
        dataset = _dataset(self.victim.data, self._data_dir)
        model = architectures.build(self.victim.architecture, dataset.input_shape, dataset.classes)
        if (of_before := self._folder / _OF_BEFORE).is_file():
            model.load_weights(of_before)
        else:
            with np.load(self._folder / _WEIGHTS) as stored:
                model.set_weights([stored[name] for name in stored.files])
        return model


def answers_digest(victim: Victim, folder: Path) -> str:
    """Return a hash of a trained victim's logits for test set and pool.

    Two trainings of one victim differ where they were made with other threads, another backend or
    processor: by this it is known whether two runs stole the same network.

    Raises:
        InputError: the logits cannot be read.
    """
    home = folder / victim.name
    return _digest(_kept(home, "test"), _kept(home, "pool"))


def is_trained(victim: Victim, folder: Path) -> bool:
    """Return whether ``prepare_victim`` has finished this one."""
    return (folder / victim.name / _LAST).is_file()


def files(victim: Victim, folder: Path) -> list[Path]:
    """Return the files of a trained victim, by which another machine has it too."""
    there = [path for path in (folder / victim.name).iterdir() if path.name[0] != "."]
    return sorted(there, key=lambda path: (path.name == _LAST, path.name))


def put(victim: Victim, folder: Path, contents: dict[str, bytes]) -> None:
    """Put a victim's files, by their names, where ``prepare_victim`` would have."""
    home = folder / victim.name
    (home / _LAST).unlink(missing_ok=True)
    for name in sorted(contents, key=lambda name: name == _LAST):
        with atomic_file(home / name) as part:
            part.write_bytes(contents[name])


def prepare_victim(victim: Victim, folder: Path, data_dir: Path | None) -> None:
    """Train a victim on its two thirds of the training set and put it into the folder.

    Raises:
        InputError: the data set cannot be read, or the victim is not trained but recorded.
    """
    if victim.steps < 1:
        raise InputError(f"{victim.name}: is a recorded classifier; tune puts it there again")
    dataset = _dataset(victim.data, data_dir)
    held_off = _held_off(victim.data, data_dir, victim.seed)
    (folder / victim.name / _LAST).unlink(missing_ok=True)
    model = train_victim(
        dataset, held_off, victim.architecture, steps=victim.steps, seed=victim.seed
    )
    home = folder / victim.name
    (home / _OF_BEFORE).unlink(missing_ok=True)
    write_arrays(home / _WEIGHTS, *model.get_weights())
    asked = {"test": dataset.x_test, "pool": held_off.adversary_images}
    answers = {which: predict(model, images) for which, images in asked.items()}
    write_arrays(home / "logits.npz", **answers)
    about = {"victim": victim.name, "made_with": made_with(dataset.digest)}
    write_json(home / _LAST, about, indent=None)


def _digest(test: Logits, pool: Logits) -> str:
    return digest(np.concatenate([test, pool]))


def _kept(home: Path, which: str) -> Logits:
    path = home / "logits.npz"
    try:
        with np.load(path) as stored:
            logits: Logits = stored[which]
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); without its folder the victim is made again"
        ) from None
    return logits


@lru_cache(maxsize=1)
def _dataset(name: str, data_dir: Path | None) -> Dataset:
    return datasets.load(name, data_dir)


@lru_cache(maxsize=1)  # many runs in a row share it
def _held_off(name: str, data_dir: Path | None, seed: int) -> HoldOff:
    return datasets.hold_off(_dataset(name, data_dir), seed=seed)
