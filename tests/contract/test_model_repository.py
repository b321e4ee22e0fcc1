from pathlib import Path

import pytest

from exporters.graph import onnx_signature
from exporters.repository import model_repository
from postprocess.errors import InputError

ROOT = Path(__file__).parents[2]
GENERATED = model_repository.files(
    "digits", onnx_signature.of_classifier((8, 8, 1), 10), model_repository.SHIPPED
)


def test_the_committed_example_is_byte_for_byte_what_the_generator_writes():
    for relative, text in GENERATED.items():
        committed = ROOT / "model_repository" / relative
        assert committed.read_bytes() == text.encode(), committed


def test_the_committed_example_holds_nothing_else():
    found = {
        str(path.relative_to(ROOT / "model_repository"))
        for path in (ROOT / "model_repository").rglob("*")
        if path.is_file() and path.suffix not in {".onnx", ".pyc"}
    }
    assert found == set(GENERATED)


def test_kept_files_of_another_classifier_are_refused(tmp_path):
    model_repository.write(tmp_path, GENERATED)
    other = onnx_signature.of_classifier((28, 28, 1), 10)
    texts = model_repository.files("digits", other, model_repository.SHIPPED)
    kept = model_repository.write(tmp_path, texts)
    with pytest.raises(InputError, match="declares other tensors"):
        model_repository.refuse_other_tensors(kept, other)


def test_files_that_an_operator_edited_are_kept_and_named(tmp_path):
    assert model_repository.write(tmp_path, GENERATED) == []
    assert model_repository.write(tmp_path, GENERATED) == []
    config = tmp_path / "digits_reverse_sigmoid" / "config.pbtxt"
    edited = config.read_text().replace('"1.5"', '"0.9"')
    config.write_text(edited)
    assert model_repository.write(tmp_path, GENERATED) == [config]
    model_repository.refuse_other_tensors([config], onnx_signature.of_classifier((8, 8, 1), 10))
    assert config.read_text() == edited
