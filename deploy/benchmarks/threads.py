"""Threads and instances of a classifier: which pay is measured, and its config.pbtxt remembers it.

The rule: as it is stays, unless something else loses nowhere and gains. It loses where the interval
of its p50 lies above that of now, or its rows per second below; it gains where one of them lies on
the other side, and its rows per second are ``LEAST_GAIN`` of now's, on average over what was
measured. Of several the one with the most rows per second is taken.
"""

import os
import re
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path
from typing import Any

from deploy.repository import model_config
from deploy.repository.config_edit import set_parameters, without_comments
from exporters.files.atomic_file import write_text
from postprocess.errors import InputError

#: In the parameters of both backends named onnxruntime, and of ours alone.
COUNT, SPINNING = "intra_op_thread_count", "session.intra_op.allow_spinning"
#: Times the rows per second of now, below which nothing is changed.
LEAST_GAIN = 1.03
_REMEMBERED = re.compile(r"^# Threads: .*\n(?:#   .*\n)*", re.MULTILINE)
_INSTANCES = re.compile(r"\binstance_group\s*:?\s*\[?\s*\{[^{}]*?\bcount\s*:\s*(\d+)")
_P50, _ROWS = "latency_p50_ms", "rows_per_second"


@dataclass(frozen=True)
class Threads:
    """What a config.pbtxt says of threads: these parameters, and how many instances."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    instances: int = 1

    def __str__(self) -> str:
        """Return it as lines of a config.pbtxt."""
        said = [f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'
                for key, value in self.parameters.items()]  # fmt: skip
        return " ".join([*said, f"instance_group [ {{ count: {self.instances} }} ]"])

    @classmethod
    def of(cls, config: Any) -> "Threads":
        """Return what a ``ModelConfig`` says; of several groups of instances no number."""
        strings = model_config.strings(config)
        groups = config.instance_group
        count = groups[0].count if len(groups) == 1 else 1
        return cls({key: strings[key] for key in (COUNT, SPINNING) if key in strings}, count or 1)

    def in_text(self, text: str) -> str:
        """Return a config.pbtxt that says it, in the place of what it says now."""
        changes = dict.fromkeys((COUNT, SPINNING)) | dict(self.parameters)
        return _with_instances(set_parameters(text, changes), self.instances)

    def put(self, config: Any) -> None:
        """Say it in a ``ModelConfig``, in the place of what it says now."""
        for key in (COUNT, SPINNING):
            config.parameters.pop(key, None)
        for key, value in self.parameters.items():
            config.parameters[key].string_value = value
        if not config.instance_group:
            config.instance_group.add()
        config.instance_group[0].count = self.instances


#: What may stand in the place of what a classifier's config.pbtxt says.
WAYS = {
    "default threads": Threads(),
    "one thread": Threads({COUNT: "1"}),
    "no spinning": Threads({SPINNING: "0"}),
    "instance a core": Threads({COUNT: "1"}, instances=os.cpu_count() or 1),
}


@dataclass(frozen=True)
class Choice:
    """Which of ``WAYS`` pays, None if it is best as it is; and why, in a sentence or two."""

    way: str | None
    reason: str

    def write(self, path: Path) -> None:
        """Put it into a config.pbtxt, with the reason in the place of an earlier one.

        Raises:
            InputError: the file is written in a form that cannot be edited.
        """
        text = path.read_text(encoding="utf-8")
        wanted = model_config.parse(text, path)
        said = textwrap.wrap(f"# Threads: {self.reason}", width=98, subsequent_indent="#   ")
        text = _REMEMBERED.sub("", text).rstrip("\n") + "\n" + "\n".join(said) + "\n"
        if self.way is not None:
            threads = WAYS[self.way]
            threads.put(wanted)
            text = threads.in_text(text)
        if model_config.parse(text, path) != wanted:
            raise InputError(
                f"{path}: written in a form that cannot be edited; write instead "
                f"{WAYS[self.way or 'default threads']}: {self.reason}"
            )
        write_text(path, text)


def keep(before: Path, after: Path) -> Threads | None:
    """Put what one config.pbtxt says of threads, and why, into the one that takes its place.

    Args:
        before: of a classifier; it need not be there.
        after: as ``protect`` has just written it.

    Returns:
        what was put there; None where the first says nothing, or cannot be read.
    """
    with suppress(InputError):
        config = model_config.read(before)
        said, reason = Threads.of(config), _REMEMBERED.search(before.read_text(encoding="utf-8"))
        if said != Threads() or reason is not None:
            text = after.read_text(encoding="utf-8").rstrip("\n") + "\n"
            write_text(after, said.in_text(text + (reason[0] if reason else "")))
            return said
    return None


def _with_instances(text: str, count: int) -> str:
    """Return the text with so many in its one group."""
    bare = without_comments(text)
    if not re.search(r"\binstance_group\b", bare):
        return f"{text}instance_group [ {{ count: {count} }} ]\n"
    found = _INSTANCES.search(bare)
    return text if found is None else text[: found.start(1)] + str(count) + text[found.end(1) :]


def candidates(config: Any) -> tuple[str, ...]:
    """Return those of ``WAYS`` that are not what the ``ModelConfig`` says already.

    Raises:
        InputError: it has several groups of instances, or runs on a GPU, where ONNX Runtime's
            threads have next to nothing to do.
    """
    groups = config.instance_group
    if len(groups) > 1 or any(group.kind == group.KIND_GPU for group in groups):
        raise InputError(
            f"--choose-threads: expected {config.name} to have one instance_group, not on a GPU"
        )
    found = []
    for way, threads in WAYS.items():
        other = type(config)()
        other.CopyFrom(config)
        threads.put(other)
        if other != config:
            found.append(way)
    return tuple(found)


def choose(report: Mapping[str, Any]) -> Choice:
    """Return which of ``WAYS`` pays, by what ``serving.run`` has measured of them."""
    cells = report["cells"]
    missed = {one["way"] for one in report["skipped"]}
    gains: dict[str, float] = {}
    why: dict[str, str] = {}
    for way in WAYS:
        measured = [cell["ways"].get(way) for cell in cells]
        if way in missed or not measured or None in measured:
            continue
        if any(one["errors"] for one in measured):
            why[way] = f"{way} fails"
            continue
        lost, won = (_surely(cells, way, slower=slower) for slower in (True, False))
        mean = exp(sum(log(one["ratio"][_ROWS]["value"]) for one in measured) / len(measured))
        why[way] = f"{way} loses {lost[0]}" if lost else f"{way} gains nothing that is sure"
        if won and not lost and mean >= LEAST_GAIN:
            gains[way] = mean
            why[way] = f"{way} gains {won[0]} and loses nowhere, rows/s {mean:.2f} on average"
    best = max(gains, key=lambda way: gains[way], default=None)
    tried = ", ".join(f"{cell['batch']} x {cell['concurrency']}" for cell in cells)
    machine = report["machine"]
    on = f"{machine['cpu_count']} CPUs, {machine['cpu']}, rows x clients {tried}"
    told = "; ".join(why.values() if best is None else [why[best]]) or "nothing else was measured"
    return Choice(best, f"{best or 'as it is'}, by `benchmark --choose-threads` on {on}: {told}.")


def _surely(cells: list[Any], way: str, *, slower: bool) -> list[str]:
    """Return where a way is slower than now, or faster, by the interval and in words."""
    found = []
    for cell in cells:
        for name, said in ((_P50, "p50"), (_ROWS, "rows/s")):
            value, low, high = (
                cell["ways"][way]["ratio"][name][key] for key in ("value", "low", "high")
            )
            if low is not None and (low > 1 if slower == (name == _P50) else high < 1):
                at = f"{cell['batch']} x {cell['concurrency']}"
                found.append(f"{said} {value:.2f} ({low:.2f} to {high:.2f}) at {at}")
    return found
