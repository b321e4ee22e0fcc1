"""Every version of the models that feed a defence: whether it gives what the defence was told.

Triton serves the newest version folder within seconds of its coming. The config.pbtxt beside it
stays, and so does what the defence was told of the scores: a version that kept its Softmax under
a defence set to logits answers so that thieves learn as from no defence, and nothing breaks.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.repository import model_config
from deploy.repository.finding import Finding, error, warning
from exporters.fusing import fused
from exporters.graph import external_data, onnx_graph
from exporters.graph.onnx_run import OnnxSession, random_source
from exporters.reading import graph_ending
from exporters.repository import versions
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.scores import looks_like_probabilities

#: Bytes of a version folder up to which a few rows of it are run.
CHEAP_BYTES = 2**28
#: Rows that are run, how many of them have to differ, and the share that has to look alike.
ROWS, DIFFERENT, ALIKE = 64, 4, 0.9


@dataclass(frozen=True)
class Fed:
    """An output that a defence reads, of a model whose versions are looked at."""

    model: str
    output: str
    defence: str
    parameters: Parameters
    version: int = -1  #: the only one that the defence reads; 0 or less: the newest


def served_wrong(repository: Path, models: Collection[str]) -> dict[str, list[str]]:
    """Return what is wrong with the served versions of some models, each in a line, by model."""
    wrong: dict[str, list[str]] = {model: [] for model in models}
    for one in _graphs(model_config.read_all(repository), repository):
        if one.model in wrong and one.served:
            wrong[one.model] += [f"{one.file}: {said}" for _, said in one.check()]
    return wrong


def look(repository: Path, configs: dict[str, Any]) -> list[Finding]:
    """Return what is wrong with the versions of models; ``configs`` is theirs, by name."""
    found = [
        _graded(code, one.model, f"{one.file}: {said}", served=one.served)
        for one in _graphs(configs, repository)
        for code, said in one.check()
    ]
    for fed in fed_outputs(configs):
        config = configs[fed.model]
        if model_config.backend_of(config) != "onnxruntime":
            what = config.backend or config.platform or "no backend"
            message = (
                f"{repository / fed.model}: {what}: its versions cannot be looked into; see for "
                f"yourself that each gives the {fed.parameters.scores} that {fed.defence} expects"
            )
            found.append(warning("version-not-looked-into", fed.model, message))
    return found


@dataclass(frozen=True)
class _Graph:
    """A version's ONNX file, not looked into yet."""

    model: str
    file: Path
    served: bool
    check: Callable[[], Iterable[tuple[str, str]]]  #: what is wrong with it, with its code


def _graphs(configs: dict[str, Any], repository: Path) -> Iterator[_Graph]:
    """Yield what has to be looked into: fused models, and all that a defence reads."""
    for name, config in configs.items():
        output = model_config.fused_output(config)
        if output is not None:
            for file, served in _files(repository / name, config):
                yield _Graph(name, file, served, partial(_check_fused, file, config, output))
    for fed in fed_outputs(configs):
        config = configs[fed.model]
        if model_config.backend_of(config) == "onnxruntime":
            for file, served in _files(repository / fed.model, config, fed.version):
                yield _Graph(fed.model, file, served, partial(_check, file, config, fed))


def _files(folder: Path, config: Any, pinned: int = -1) -> Iterator[tuple[Path, bool]]:
    """Yield the ONNX files that hold something, oldest first, and whether each is served."""
    served = versions.served(folder, config, pinned)
    for version in versions.folders(folder):
        file = versions.graph(version, config)
        if file.is_file() and file.stat().st_size:
            yield file, version in served


def _graded(code: str, model: str, message: str, *, served: bool) -> Finding:
    """A version that is not served harms nobody until it is."""
    if served:
        return error(code, model, message)
    return warning(code, model, f"{message} (this version is not served now)")


def fed_outputs(configs: dict[str, Any]) -> Iterator[Fed]:
    """Yield every output that a defence reads, once for each defence."""
    seen = set()
    for config in configs.values():
        steps = list(config.ensemble_scheduling.step)
        for step in steps:
            defence = configs.get(step.model_name)
            if defence is None or not model_config.is_defence(defence):
                continue
            parameters = Parameters.from_strings(model_config.strings(defence), where="")
            for other in steps:
                for output, tensor in other.output_map.items():
                    fed = Fed(
                        other.model_name, output, step.model_name, parameters, other.model_version
                    )
                    if tensor in step.input_map.values() and fed.model in configs:
                        if fed not in seen:
                            yield fed
                        seen.add(fed)


def _check(file: Path, config: Any, fed: Fed) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one version, with its code."""
    try:
        model = onnx_graph.load(file)
        external_data.files(model, file)
    except InputError as refusal:
        yield "version-unreadable", str(refusal).removeprefix(f"{file}: ")
        return
    answers = _run(file, model, config, fed)
    yield from _check_tensors(model, config, fed, answers)
    if fed.output in [value.name for value in onnx_graph.outputs(model)]:
        parts = [part for one in answers if (part := _as_rows(one, config, fed)) is not None]
        alike = [part for part in parts if part.shape[1] == parts[0].shape[1]]
        rows = np.concatenate(alike) if alike else None
        yield from _check_kind(fed, graph_ending.probabilities_from(model, fed.output), rows)


def _check_kind(
    fed: Fed, ending: str | None, rows: NDArray[Any] | None
) -> Iterator[tuple[str, str]]:
    """Yield where a version gives probabilities for logits, or the other way round."""
    parameters, place = fed.parameters, f"output {fed.output}"
    way_out = (
        f"serve it as reverse-sigmoid protect writes it, or set scores in {fed.defence}'s "
        "config.pbtxt to what every version gives"
    )
    likely = None
    if rows is not None and len(rows):
        single = parameters.multi_label or rows.shape[1] == 1
        likely = looks_like_probabilities(rows, single=single)
    if parameters.scores == "logits":
        told = likely is not None and likely.mean() >= ALIKE
        told = told and rows is not None and len(np.unique(rows, axis=0)) >= DIFFERENT
        if ending is not None or told:
            seen = f"ends in {ending}" if ending else "gives rows that look like probabilities"
            yield (
                "version-probabilities",
                f"{place} {seen}, and {fed.defence} expects logits; {way_out}",
            )
    elif ending is None and likely is not None and not likely.all():
        yield (
            "version-logits",
            f"{place} gives rows that are no probabilities, and {fed.defence} expects "
            f"probabilities; {way_out}",
        )


def _check_tensors(
    model: Any, config: Any, fed: Fed, answers: list[NDArray[Any]]
) -> Iterator[tuple[str, str]]:
    """Yield where a version's tensors are not those of config.pbtxt."""
    for kind, declared, values in (
        ("input", config.input, onnx_graph.inputs(model)),
        ("output", config.output, onnx_graph.outputs(model)),
    ):
        there = {value.name: value for value in values}
        for tensor in declared:
            if tensor.name not in there:
                has = ", ".join(there) or "none"
                yield "version-tensors", f"{kind} {tensor.name}: config.pbtxt has it, got {has}"
                continue
            value = there[tensor.name]
            wanted = model_config.data_type_name(tensor)
            if value.data_type != wanted:
                said = f"{kind} {tensor.name}: config.pbtxt says {wanted}, got {value.kind}"
                yield "version-tensors", said
            dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
            shape = list(value.shape) if value.shape is not None else None
            if tensor.name == fed.output and kind == "output" and answers:
                shape = list(answers[0].shape)  # what a graph declares may be wrong
            own = shape[1:] if shape is not None and config.max_batch_size else shape
            if own is not None and not _fits(own, dims):
                yield (
                    "version-tensors",
                    f"{kind} {tensor.name}: config.pbtxt says dims {dims}, got {own}",
                )


def _fits(shape: list[int | str], dims: list[int]) -> bool:
    return len(shape) == len(dims) and all(
        isinstance(size, str) or -1 in (size, wanted) or size == wanted
        for size, wanted in zip(shape, dims, strict=True)
    )


def _run(file: Path, model: Any, config: Any, fed: Fed) -> list[NDArray[Any]]:
    """Return a few answers of a version, in the output's own shape; none where none are cheap."""
    if sum(one.stat().st_size for one in file.parent.rglob("*") if one.is_file()) > CHEAP_BYTES:
        return []
    try:
        runner, values = OnnxSession(file), onnx_graph.inputs(model)
        batched = bool(config.max_batch_size)
        source = random_source(runner, values, [fed.output], batched, onnx_graph.strings(model))
        feeds = source.feeds(min(ROWS, source.rows_at_once()))
        answers: list[NDArray[Any]] = []
        rows = 0
        while rows < ROWS and len(answers) < 8:
            answers.append(runner(next(feeds), [fed.output])[fed.output])
            rows += len(answers[-1]) if answers[-1].ndim else ROWS
        return answers
    except Exception:  # it takes other input than random, or onnxruntime is not there
        return []


def _as_rows(answer: NDArray[Any], config: Any, fed: Fed) -> NDArray[Any] | None:
    """Return finite rows of K; None where the answer has no such axis or no floats."""
    if answer.dtype.kind != "f":
        return None
    if answer.ndim == 1 and config.max_batch_size:
        answer = answer[:, None]
    axis = fed.parameters.class_axis
    if not -answer.ndim <= axis < answer.ndim:
        return None
    moved = np.moveaxis(answer, axis, -1)
    rows: NDArray[Any] = moved.reshape(-1, moved.shape[-1])
    finite: NDArray[Any] = rows[np.isfinite(rows).all(axis=1)]
    return finite


def _check_fused(file: Path, config: Any, output: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one version of a fused model, with its code."""
    try:
        model = onnx_graph.load(file)
        parameters = fused.read_parameters(model, where=str(file))
        fused.refuse_altered(model)
        external_data.files(model, file)
        if fused.output_of(model) != output:
            raise InputError(f"the defence in the graph does not make {output}")
    except InputError as refusal:
        yield "version-no-defence", str(refusal).removeprefix(f"{file}: ")
        return
    yield from _check_tensors(model, config, Fed(config.name, output, config.name, parameters), [])
    ending = graph_ending.probabilities_from(model, fused.VICTIM_SCORES)
    if parameters.scores == "logits" and ending is not None:
        yield (
            "version-probabilities",
            f"the classifier inside ends in {ending}, and its defence expects logits; protect "
            "the classifier anew",
        )
