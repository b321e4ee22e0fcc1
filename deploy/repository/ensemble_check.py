"""Ensembles, looked at step by step: whether the tensors fit, and where raw scores come out."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.repository import model_config
from deploy.repository.finding import Finding, error, raw_output, warning


def check_steps(repository: Path, configs: dict[str, Any]) -> list[Finding]:
    """Return where the tensors of an ensemble's steps do not fit each other."""
    found = []
    for name, config in configs.items():
        where = repository / name / "config.pbtxt"
        for code, message in _follow(config, configs):
            found.append(error(code, name, f"{where}: {message}"))
    return found


def _follow(config: Any, configs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong along the way of an ensemble's tensors, with its code."""
    steps = list(config.ensemble_scheduling.step)
    tensors = {tensor.name: tensor for tensor in config.input}
    made = set(tensors).union(*(step.output_map.values() for step in steps))
    for step in steps:
        model = configs.get(step.model_name)
        outputs = {tensor.name: tensor for tensor in model.output} if model else {}
        for key, tensor_name in step.output_map.items():
            if key in outputs:
                tensors[tensor_name] = outputs[key]
    for step in steps:
        yield from _check_step(step, config.max_batch_size, configs, tensors, made)
    if steps:
        for tensor in config.output:
            if tensor.name not in made:
                yield "step", f"output {tensor.name}: expected a step that makes it"
            elif tensor.name in tensors:
                yield from _compare(f"output {tensor.name}", tensors[tensor.name], tensor)


def _check_step(
    step: Any, rows: int, configs: dict[str, Any], tensors: dict[str, Any], made: set[str]
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one step of an ensemble of at most ``rows`` rows."""
    place = f"step {step.model_name}"
    model = configs.get(step.model_name)
    if model is None:
        yield "step", f"{place}: expected a model of this repository that can be read"
        return
    if not model.input and not model.output:  # completed at the load
        return
    most = model.max_batch_size
    if 0 < most < rows or bool(most) != bool(rows):
        wanted = f"expected at most {most}, that of {place}" if most else f"expected 0, as {place}"
        yield "batch", f"max_batch_size: {wanted}, got {rows}"
    for kind, mapping, declared in (
        ("input_map", step.input_map, {tensor.name: tensor for tensor in model.input}),
        ("output_map", step.output_map, {tensor.name: tensor for tensor in model.output}),
    ):
        for key, tensor_name in sorted(mapping.items()):
            if key not in declared:
                yield "step", f"{place}: {kind} {key}: expected {' or '.join(declared)}"
            elif tensor_name not in made:
                yield "step", f"{place}: {kind} {key}: no step makes {tensor_name}"
            elif tensor_name in tensors:
                said = f"{place}: {kind} {key}"
                yield from _compare(said, tensors[tensor_name], declared[key])


def _compare(place: str, given: Any, taken: Any) -> Iterator[tuple[str, str]]:
    """Yield where two declarations of one tensor differ."""
    types = model_config.data_type_name(given), model_config.data_type_name(taken)
    if types[0] != types[1]:
        yield "step", f"{place}: expected {types[0]}, got {types[1]}"
    dims = list(given.dims), list(taken.dims)
    if len(dims[0]) != len(dims[1]) or any(
        a != b and -1 not in (a, b) for a, b in zip(*dims, strict=True)
    ):
        yield "step", f"{place}: expected dims {dims[0]}, got {dims[1]}"


def check_ways_round(
    repository: Path, configs: dict[str, Any], defending: set[str]
) -> list[Finding]:
    """Return where scores come out that no defence has perturbed."""
    found = []
    ensembles: dict[str, list[str]] = {}  # who makes raw scores, to the ensembles that protect them
    used: set[str] = set()
    for name, config in configs.items():
        steps = list(config.ensemble_scheduling.step)
        defences = [step for step in steps if step.model_name in defending]
        if not defences:
            continue
        used |= {step.model_name for step in defences}
        raw = {tensor for step in defences for tensor in step.input_map.values()}
        made = {tensor for step in defences for tensor in step.output_map.values()}
        for output in config.output:
            is_score = model_config.holds_floats(output)
            if output.name in raw or (is_score and output.name not in made):
                found.append(raw_output(repository / name / "config.pbtxt", output.name))
        sizes = {
            _size(tensor)
            for step in defences
            if step.model_name in configs
            for tensor in configs[step.model_name].input
        }
        for victim in sorted(_score_makers(config, raw, sizes, configs)):
            ensembles.setdefault(victim, []).append(name)
    for victim, names in ensembles.items():
        message = (
            f"{victim}: whoever reaches Triton can call it and gets raw scores; let clients reach "
            f"{' and '.join(names)} only"
        )
        found.append(warning("raw-reachable", victim, message))
    for name, config in configs.items():
        called = {*model_config.step_names(config)}
        if not called & defending and name not in ensembles:
            for victim in sorted(called & set(ensembles)):
                message = f"{name}: calls {victim}, and no defence after it"
                found.append(error("raw-ensemble", name, message))
    for name in sorted(defending - used):
        found.append(warning("idle-defence", name, f"{name}: no ensemble uses this defence"))
    return found


def _score_makers(
    ensemble: Any,
    tensors: set[str],
    sizes: set[int | None],
    configs: dict[str, Any],
    seen: frozenset[str] = frozenset(),
) -> set[str]:
    """Return the models of an ensemble's steps, and of theirs, that make raw scores.

    Args:
        ensemble: its configuration.
        tensors: those of it that are raw scores.
        sizes: how many values a row of scores may have. What comes before scores and has another
            number of them, such as an image made ready, is none; what makes ``tensors`` always is.
        configs: of all models, by their names.
        seen: models that are looked into already, should one have itself as a step.
    """
    makers: set[str] = set()
    followed: set[str] = set()
    ahead = set(tensors)
    while ahead:
        followed |= ahead
        before: set[str] = set()
        for step in ensemble.ensemble_scheduling.step:
            model = configs.get(step.model_name)
            declared = {tensor.name: tensor for tensor in model.output} if model else {}
            made = {key for key, tensor in step.output_map.items() if tensor in ahead}
            if not made:
                continue
            before |= set(step.input_map.values())
            scores = {
                key for key in made
                if step.output_map[key] in tensors
                or (key in declared and _is_like(declared[key], sizes))
            }  # fmt: skip
            if scores:
                makers.add(step.model_name)
                if model and step.model_name not in seen:
                    inner = seen | {step.model_name}
                    makers |= _score_makers(model, scores, sizes, configs, inner)
        ahead = before - followed
    return makers


def _is_like(tensor: Any, sizes: set[int | None]) -> bool:
    """Say whether a tensor can be scores of so many values a row."""
    is_open = None in {*sizes, _size(tensor)}
    return model_config.holds_floats(tensor) and (is_open or _size(tensor) in sizes)


def _size(tensor: Any) -> int | None:
    """Return the values of a tensor's row, None where its dims leave that open."""
    return None if -1 in tensor.dims else math.prod(tensor.dims)
