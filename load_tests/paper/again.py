"""A run's file made again: its victim and its thief, each under the conditions that it names."""

from pathlib import Path
from typing import Any

from load_tests.runs import conditions
from load_tests.runs.conditions import Conditions
from load_tests.runs.made import Made, read
from load_tests.runs.runner import Runner, Tell

#: What a file of before ``made_with`` lacks.
UNKNOWN = "the file does not say what it was made with"


def make(before: Made, folder: Path, *, data_dir: Path | None, tell: Tell) -> Made:
    """Return what comes out when a run is made again.

    Raises:
        InputError: the file names what cannot be.
        RunError: the victim cannot be trained, or the run cannot be made.
    """

    def runner(made_with: dict[str, Any] | None) -> Runner:
        chosen = None if made_with is None else Conditions.from_json(made_with)
        return Runner(folder, data_dir=data_dir, jobs=1, tell=tell, conditions=chosen, mixed=True)

    with runner(before.victim_made_with) as first:
        first.train(before.run.victim)
    first.refuse_failed()
    with runner(before.made_with) as second:
        second.make([before.run])
    second.refuse_failed()
    return read(second.path(before.run))


def differences(before: Made, after: Made) -> list[str]:
    """Return what the two were not made alike with, a line for each thing."""
    found = []
    for whose, old, new in (
        ("", before.made_with, after.made_with),
        ("victim's ", before.victim_made_with, after.victim_made_with),
    ):
        lines = [UNKNOWN] if old is None or new is None else conditions.differences(old, new)
        found += [f"{whose}{line}" for line in lines]
    return found
