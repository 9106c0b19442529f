"""How much is kept of what a sink writes: by size, by age, and by what is left on the disk."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kept:
    """Files that belong together and go together.

    Attributes:
        files: Paths, in the order in which they are deleted.
        size: Bytes of all of them.
        written_s: Unix time.
    """

    files: tuple[Path, ...]
    size: int
    written_s: float


class Retention:
    """Deletes the oldest when there is too much; for one thread.

    Args:
        root: Folder that everything lies below; folders in it that become empty go, too.
        max_bytes: Most bytes of all.
        max_age_s: Longest that anything stays; None: for ever.
        min_free_bytes: Below that much free space on the disk, the oldest go as well: a line needs its disk.
    """

    def __init__(self, root: Path, max_bytes: int, max_age_s: float | None, min_free_bytes: int) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._max_age_s, self._min_free_bytes = max_age_s, min_free_bytes
        self._kept: deque[Kept] = deque()
        self.total_bytes = 0
        self.deleted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def adopt(self, found: Iterable[Kept]) -> None:
        """Takes over what is there already, oldest first."""
        for kept in found:
            self.add(kept)

    def add(self, kept: Kept) -> None:
        """Knows of one more, the newest."""
        self._kept.append(kept)
        self.total_bytes += kept.size

    def apply(self, now_s: float | None = None, *, needed_bytes: int = 0) -> None:
        """Deletes what is too old or too much.

        Args:
            now_s: Unix time; by default now.
            needed_bytes: Room for what is to be written next.

        Raises:
            OSError: Something cannot be deleted.
        """
        now_s = time.time() if now_s is None else now_s
        while self._kept and self._kept[0].written_s < now_s - (self._max_age_s or float("inf")):
            self._delete_oldest()
        while self._kept and self.total_bytes + needed_bytes > self._max_bytes:
            self._delete_oldest()
        if self._min_free_bytes:
            # Asked once: what other programs write meanwhile is seen the next time.
            lacking = self._min_free_bytes + needed_bytes - shutil.disk_usage(self._root).free
            while self._kept and lacking > 0:
                lacking -= self._delete_oldest()

    def _delete_oldest(self) -> int:
        kept = self._kept[0]
        for file in kept.files:
            file.unlink(missing_ok=True)
        self._kept.popleft()
        self.total_bytes -= kept.size
        self.deleted += 1
        for folder in kept.files[0].parents:
            if folder == self._root or not _removed_if_empty(folder):
                break
        return kept.size


def _removed_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def scan(folder: Path, group: Callable[[os.DirEntry[str]], str]) -> dict[str, list[os.DirEntry[str]]]:
    """The files of one folder, sorted by name and put together by what `group` says of each."""
    found: dict[str, list[os.DirEntry[str]]] = {}
    with os.scandir(folder) as listing:
        for file in sorted(listing, key=lambda file: file.name):
            if file.is_file(follow_symlinks=False):
                found.setdefault(group(file), []).append(file)
    return found
