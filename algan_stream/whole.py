"""Files that are there as a whole or not at all, also when the power fails."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

#: How names of files begin that are not whole yet, or never became so.
UNFINISHED = ".tmp-"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file; readable by all, as a new file usually is.

    Raises:
        OSError: It cannot be written; one that stood there stands as before.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    with suppress(OSError):  # it is there now, and to say that it is not would be wrong
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Lets the names in a folder survive a power failure, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
