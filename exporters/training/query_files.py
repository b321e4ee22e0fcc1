"""What the adversary has of a data set, as files that ``attack`` asks and judges by."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from exporters.files.atomic_file import write_arrays
from exporters.graph.onnx_signature import of_classifier
from exporters.training import architectures, datasets
from exporters.training.datasets import Dataset
from postprocess.errors import InputError

#: The third set aside, to ask about; and the test set with its labels, to judge by.
NAMES = ("query.npz", "test.npz")


def refuse(folder: Path, *, force: bool) -> None:
    """Refuse a folder that is none or, unless forced, holds such files.

    Raises:
        InputError: see above.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--query-sets {folder}: expected a folder, got a file")
    for name in NAMES:
        if (folder / name).exists() and not force:
            raise InputError(f"--query-sets: {folder / name} exists; give --force to replace it")


def write(folder: Path, dataset: Dataset, *, architecture: str, seed: int) -> None:
    """Write both files: the model's input by its name, and ``features`` where that is no floats.

    Args:
        folder: is made if need be.
        dataset: the victim's.
        architecture: the victim's, which decides its input.
        seed: of the hold-off, as in ``pipeline.export_classifier``.

    Raises:
        InputError: a file cannot be written, or the network does not take the data.
    """
    asked = architectures.view(architecture, dataset)
    (tensor,) = of_classifier(asked.input_shape, asked.classes).inputs
    views = {tensor.name: asked} if asked is dataset else {tensor.name: asked, "features": dataset}
    query: dict[str, NDArray[Any]] = {
        name: datasets.hold_off(view, seed=seed).adversary_images for name, view in views.items()
    }
    test: dict[str, NDArray[Any]] = {name: view.x_test for name, view in views.items()}
    for name, arrays in zip(NAMES, (query, {**test, "labels": dataset.y_test}), strict=True):
        try:
            write_arrays(folder / name, **arrays)
        except OSError as error:
            raise InputError(f"{folder / name}: cannot be written: {error.strerror}") from None
