"""New versions of models while they are served: what is wrong with them is said once, as it comes.

They are looked into by another process, of low priority and for a bounded time: a graph is parsed
and run there, which may take long or end the process.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.processes import die_with_parent
from deploy.repository import version_check

#: How often the files are looked at, at most.
LOOK_EVERY_S = 2.0
#: How long one look may take.
LOOK_S = 300.0

Files = frozenset[tuple[str, int, int]]


class Versions:
    """The versions of a repository, looked into as they change."""

    def __init__(self, repository: Path) -> None:
        """Begin to look; ``news`` tells what was found."""
        self._repository = repository
        self._files: dict[str, Files] = {}
        self._wrong: dict[str, list[str]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._begin()
        atexit.register(self.close)

    def news(self) -> list[str]:
        """Return what is wrong since the last time, in a line each; never waits for it."""
        if self._process is not None:
            if self._process.poll() is None and time.monotonic() - self._began < LOOK_S:
                return []
            self.close()
            return self._found()
        if time.monotonic() - self._looked >= LOOK_EVERY_S:
            self._begin()
        return []

    def wait(self) -> None:
        """Wait for what is being looked into."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_S)

    def close(self) -> None:
        """End the process that looks, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _found(self) -> list[str]:
        self._said.seek(0)
        try:
            found: dict[str, list[str]] = json.load(self._said)
        except ValueError:
            return [f"{name}: it could not be looked into; see what reverse-sigmoid check "
                    f"{self._repository} says" for name in self._changed]  # fmt: skip
        before = {line for lines in self._wrong.values() for line in lines}
        self._wrong |= found
        return sorted({line for lines in found.values() for line in lines} - before)

    def _begin(self) -> None:
        """Have those models looked into whose versions have changed, if there are any."""
        before, self._files = self._files, version_files(self._repository)
        self._looked = time.monotonic()
        names = {*before, *self._files}
        self._changed = sorted(one for one in names if self._files.get(one) != before.get(one))
        if not self._changed:
            return
        self._began, self._said = time.monotonic(), tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", die_with_parent.__file__, str(os.getpid())),
                *(sys.executable, "-m", "deploy.supervision.versions"),
                *(os.getcwd(), str(self._repository), *self._changed),
            ],
            cwd=Path(__file__).parents[2],  # another folder of that name may be where we are
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def version_files(repository: Path) -> dict[str, Files]:
    """Return what changes with each model's versions: its files, their sizes and times."""
    found: dict[str, set[tuple[str, int, int]]] = {}
    versions = (one for model in _inside(str(repository)) for one in _inside(model))
    for path in (file for one in versions if one[one.rindex("/") + 1].isdigit()
                 for file in _inside(one)):  # fmt: skip
        try:
            status = os.stat(path)
        except OSError:  # it was just removed
            continue
        one = path, status.st_size, status.st_mtime_ns
        found.setdefault(path.rsplit("/", 3)[1], set()).add(one)
    return {name: frozenset(files) for name, files in found.items()}


def _inside(folder: str) -> list[str]:
    """Return what a folder holds; strings, as paths take several times as long in every round."""
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:  # a file, or just removed
        return []


if __name__ == "__main__":
    os.nice(10)
    os.chdir(sys.argv[1])
    print(json.dumps(version_check.served_wrong(Path(sys.argv[2]), sys.argv[3:])))
