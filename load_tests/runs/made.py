"""What a run's file holds."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from load_tests.runs.run import Measures, Run
from postprocess.errors import InputError


class Made(NamedTuple):
    """What a run's file holds."""

    run: Run
    result: Measures
    made_with: dict[str, Any] | None  #: see ``conditions``; files of before do not say
    victim_made_with: dict[str, Any] | None  #: the same, of the run's victim
    victim_digest: str | None  #: of what it answered, see ``victims.answers_digest``


#: The last fields of ``Made`` as they are called in a file.
WITH = Made._fields[2:]


def read(path: Path) -> Made:
    """Return what a run's file holds.

    Raises:
        InputError: it cannot be read, or is not a run's file.
    """
    try:
        content = json.loads(path.read_text())
        with_what = (content.get(name) for name in WITH)
        return Made(Run.from_json(content["run"]), content["result"], *with_what)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a run's file: {error}") from None
