"""A process that makes runs one after the other, for ``runner``.

    python -m load_tests.runs.worker FOLDER [DATA_DIR]

reads a line of JSON for each from stdin and answers with one on stdout: ``{"run": ...}`` with
``{"result": ..., "made_with": ..., "victim_made_with": ..., "victim_digest": ...}``,
``{"victim": ...}``, which is trained and put into FOLDER, with ``{}``, and what cannot be done with
``{"error": ...}``. It ends with its input. Its environment is that of ``conditions.Conditions``.
"""

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from exporters.files.atomic_file import told
from exporters.quiet_import import import_quietly
from load_tests.runs.conditions import made_with
from load_tests.runs.execute import execute
from load_tests.runs.run import Run, Victim
from load_tests.runs.victims import TrainedVictim, prepare_victim
from postprocess.errors import ReverseSigmoidError


def main(folder: Path, data_dir: Path | None) -> None:
    """Answer every line; returns nothing."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import_quietly("keras")
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), folder, data_dir)
        except ReverseSigmoidError as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"error": told(error)}
        except Exception as error:
            traceback.print_exc()
            said = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {said}; stderr says where"}
        answers.write(json.dumps(answer) + "\n")


def _answer(asked: dict[str, Any], folder: Path, data_dir: Path | None) -> dict[str, Any]:
    if "victim" in asked:
        prepare_victim(Victim(**asked["victim"]), folder, data_dir)
        return {}
    run = Run.from_json(asked["run"])
    victim = TrainedVictim(run.victim, folder, data_dir)
    return {
        "result": execute(run, victim),
        "made_with": made_with(victim.data_digest),
        "victim_made_with": victim.made_with,
        "victim_digest": victim.digest,
    }


def _end_with(parent: int) -> None:
    """End as soon as the process that asks is gone; its last request would still be answered."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
