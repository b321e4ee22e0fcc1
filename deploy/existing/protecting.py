"""A model of a repository, protected: read, asked, written, verified, and only then moved in."""

import os
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from deploy.existing import asking, completing, placing_in, reading, served, staging
from deploy.existing.asking import Understood
from deploy.existing.reading import EMBEDDED, ExistingModel
from deploy.existing.served import NotServedHereError
from deploy.existing.staging import Staged, Take
from deploy.repository import model_config
from exporters import question
from exporters.files import servable_path
from exporters.files.linking import link_or_copy
from exporters.graph.onnx_run import GraphRunner, one_line
from exporters.protect import folder_beside
from exporters.reading.classifier import ProtectOptions
from exporters.reading.evidence import as_rows
from exporters.verify import defended, refuse_other_answers
from postprocess.arrays import Array
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.question import Question, path_in, text_of

#: How far an answer of the written models may be from the defence's own maths.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class ProtectedInPlace:
    """What was found out about an existing model, and what was written around it."""

    model: ExistingModel
    found: Understood
    parameters: list[Parameters]  #: of each head's defence
    staged: Staged
    repository: Path
    verified: list[int]  #: rows of each head; 0: not verified
    warnings: list[str]


@dataclass(frozen=True)
class _Known:
    """What asking a model gave."""

    found: Understood
    parameters: list[Parameters]
    questions: list[Question]  #: of the heads that have one
    not_here: str = ""  #: why the embedded Triton does not serve it; "": it does


def protect(
    folder: Path,
    parameters: Parameters,
    asked: ProtectOptions,
    *,
    url: str = "",
    out: Path | None = None,
) -> ProtectedInPlace:
    """Protect the model of a folder REPOSITORY/NAME and return what was done.

    Args:
        folder: of the model.
        parameters: of the defence; ``scores``, ``multi_label`` and ``class_axis`` are replaced by
            what is found.
        asked: what a person says about the model.
        url: HOST:PORT of a Triton that serves it, asked where the embedded one cannot serve it.
        out: another repository, for the protected models; None: in place.

    Raises:
        InputError: it cannot be protected, or what was asked does not fit it; nothing has changed
            then, unless the message says so.
    """
    repository = folder.parent if out is None else out
    if out is not None and out.resolve() == folder.parent.resolve():
        raise InputError(f"--repository {out}: the model's own; leave it out, to protect in place")
    servable_path.refuse(repository)
    complete = partial(completing.complete, url=url, near=repository)
    model = reading.read(folder, complete, outputs=asked.output, in_place=out is None)
    with placing_in.beside(repository) if out is None else folder_beside(repository) as work:
        if out is None:
            placing_in.refuse_without_exchange(work)
        known = _understand(model, parameters, asked, url=url, work=work)
        if model.is_ensemble:
            _refuse_leaks(model, known.found)
        # Out of place never a link: whoever trains again may write over the original's files.
        keep: Take = staging.link if out is None else staging.copy
        staged = staging.write(
            model, known.found, known.parameters, asked, work / "models", take=keep
        )
        linked = time.monotonic()
        if known.questions:
            path_in(staged.folder, model.name).write_text(text_of(known.questions), "utf-8")
        verified = [0] * len(known.parameters)
        if not known.not_here:
            verified = _verify(model, staged, known, work / "verified")
        if out is None:
            look = staging.watch(model, staged, staging.write_record(model, staged))
            if model_config.backend_of(model.config) == "python":
                # A server that polls loads it again for the links, which are no older.
                time.sleep(max(0.0, linked + placing_in.POLL_S - time.monotonic()))
            look(model.folder)
            public, *behind = staged.models
            # The record is the defence's: it comes first.
            placing_in.move_in(staged.folder, repository, behind[::-1], public, look=look)
        else:
            _place_out(model, staged, out)
    warnings = [*known.found.warnings, *_warnings(known)]
    return ProtectedInPlace(
        model, known.found, known.parameters, staged, repository, verified, warnings
    )


def _understand(
    model: ExistingModel,
    parameters: Parameters,
    asked: ProtectOptions,
    *,
    url: str,
    work: Path,
) -> _Known:
    """Ask the embedded Triton, else the server that was named, else the person."""
    strange = sorted(set(model.backends()) - set(EMBEDDED))
    why = f"backend {' and '.join(strange)} does not run in the embedded Triton"
    if not strange:
        for name in model.closure():
            staging.take_for_here(model.repository / name, work / "asked" / name)
        try:
            with served.here(work / "asked", model.name, batched=model.batched) as runner:
                return _asked(model, runner, parameters, asked)
        except NotServedHereError as error:
            why = f"the embedded Triton does not serve it: {error}"
    if url:
        steps = model_config.step_names(model.config)
        with served.at(url, model.name, steps, batched=model.batched) as runner:
            return replace(_asked(model, runner, parameters, asked), not_here=why)
    try:
        found = asking.told(model, asked, why)
    except InputError as error:
        raise InputError(f"{model.folder}: {error}") from None
    return _Known(found, [head.defence(parameters) for head in found.heads], [], why)


def _asked(
    model: ExistingModel, runner: GraphRunner, parameters: Parameters, asked: ProtectOptions
) -> _Known:
    from tritonclient.utils import InferenceServerException

    try:
        found = asking.ask(model, runner, asked)
        each, kept = [head.defence(parameters) for head in found.heads], []
        for head, one in zip(found.heads, each, strict=True):
            if found.source is not None:
                output, batched = head.value.name, model.batched
                kept.append(
                    question.of_answers(
                        runner, found.source, head.evidence, one, output, batched=batched
                    )
                )
        return _Known(found, each, [one for one in kept if one is not None])
    except (InputError, InferenceServerException) as error:
        raise InputError(f"{model.folder}: {one_line(error)}") from None


def _refuse_leaks(model: ExistingModel, found: Understood) -> None:
    """Refuse an ensemble whose scores leave it, or are read within it, beside the defence."""
    steps = model.config.ensemble_scheduling.step
    for output in found.outputs:
        readers = [one.model_name for one in steps if output in one.input_map.values()]
        if readers:
            raise InputError(
                f"{model.folder}: its step {readers[0]} reads the scores {output}, and what it "
                "makes of them would leak them; protect an ensemble that ends in its scores"
            )
        if not any(output in one.output_map.values() for one in steps):
            raise InputError(
                f"{model.folder}: no step of it makes its output {output}; name {output} in the "
                "output_map of the step that does"
            )
    if found.dropped:
        raise InputError(
            f"{model.folder}: what its output {found.dropped[0]} says beside the scores can leak "
            "the model; take it out of the ensemble's outputs first"
        )


def _verify(model: ExistingModel, staged: Staged, known: _Known, repository: Path) -> list[int]:
    """Return on how many rows of each head the written models answer as the defence's maths says.

    Raises:
        InputError: an answer is another, or has another top class.
    """
    for name in staged.models:
        staging.take_for_here(staged.folder / name, repository / name)
    for name in model.closure()[1:]:
        staging.take_for_here(model.repository / name, repository / name)
    found = known.found
    heads = list(zip(found.heads, known.parameters, strict=True))
    postprocessors = list(map(Postprocessor, known.parameters))
    rows = [0] * len(heads)
    with served.here(repository, model.name, batched=model.batched) as runner:
        for feed, raw in found.answers:
            expected = [
                defended(raw[output], postprocessor, flat=False)
                for output, postprocessor in zip(found.outputs, postprocessors, strict=True)
            ]
            try:
                answers = runner(feed, found.outputs)
            except Exception as error:
                if any(np.isnan(one).any() for one in expected):
                    continue  # a request with a bad row gets no answer at all
                said = f"verification: the protected model fails: {one_line(error)}"
                raise InputError(f"{model.folder}: {said}; nothing was changed") from None
            for index, (head, parameters) in enumerate(heads):
                output = head.value.name
                before, after = (
                    as_rows(one[output], parameters.class_axis) for one in (raw, answers)
                )
                try:
                    _refuse_other(answers[output], expected[index])
                    refuse_other_answers(before, before, after, head.value.data_type, head.scores)
                except InputError as error:
                    raise InputError(f"{model.folder}: output {output}: {error}") from None
                rows[index] += len(before)
    if not all(rows):
        scores = known.parameters[rows.index(0)].scores
        raise InputError(
            f"{model.folder}: verification: the defence takes none of the answers tried for "
            f"{scores}; give real rows with --sample FILE.npz"
        )
    return rows


def _refuse_other(answer: Array, expected: Array) -> None:
    off = f"shape {answer.shape}, expected {expected.shape}"
    if answer.shape == expected.shape:
        difference = np.abs(answer - expected)
        if (difference <= TOLERANCE).all():
            return
        off = f"off by up to {np.nanmax(difference, initial=0.0):.1g}"
    raise InputError(
        "verification: the protected answers are not what the defence makes of the model's own "
        f"({off}), as where a model answers the same rows otherwise each time; nothing was changed"
    )


def _place_out(model: ExistingModel, staged: Staged, out: Path) -> None:
    """Move the models to another repository, the public one last, and those behind them."""
    names = [*staged.models[:0:-1], staged.models[0]]
    for name in model.closure()[1:]:
        staging.take_tree(model.repository / name, staged.folder / name, link_or_copy)
        names.insert(0, name)
    for name in names:
        if (out / name).exists():
            raise InputError(f"{out / name} exists; remove it, or choose another --repository")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.move(os.fspath(staged.folder / name), out / name)
    except OSError as error:
        for name in names:
            shutil.rmtree(out / name, ignore_errors=True)
        where = error.filename2 or error.filename or out
        raise InputError(f"{where}: cannot be written: {error.strerror}") from None


def _warnings(known: _Known) -> list[str]:
    found, said = known.found, []
    said += [
        f"output {name} is dropped: what it says beside the scores can leak the model"
        for name in found.dropped
    ]
    if known.not_here:
        said.append(f"the protected model was not run: {known.not_here}")
    told = [one.looks.output for one in known.questions if one.looks.tells_raw]
    for name in found.outputs:
        if name not in told:
            which = f"output {name}: " if len(found.outputs) > 1 else ""
            said.append(
                f"{which}health checks cannot tell a protected answer from a raw one; give "
                "confident rows with --sample"
            )
    return said
