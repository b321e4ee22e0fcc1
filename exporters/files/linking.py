"""Files that stand at two places, without a copy where they are large."""

import os
import shutil
from pathlib import Path

#: What is smaller may be edited in its place, and then the other would change too.
EDITED_BYTES = 2**20


def link_or_copy(file: Path, target: Path) -> None:
    """Make a file stand at another place too: what people edit by a copy, the rest as may be."""
    try:
        if file.lstat().st_size < EDITED_BYTES:
            raise OSError
        os.link(file, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(file, target, follow_symlinks=False)
