"""One JSON line per verdict, in a file that is set aside when it is large or the day is over."""

from __future__ import annotations

import errno
import gzip
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Literal

import msgspec

from algan_stream.errors import ConfigError
from algan_stream.logs import Seldom
from algan_stream.ranges import check_ranges
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict

log = logging.getLogger(__name__)

#: Most bytes that are looked through for the end of the last whole line.
_LONGEST_LINE = 64 << 20


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: jsonl`.

    A file that is set aside is named by the UTC time of that, `verdicts.jsonl` becomes
    `verdicts-20261125T155412Z.jsonl`.

    Attributes:
        path: File to append to; its folder must exist.
        max_mb: Set it aside before it grows beyond this (10⁶ bytes); None: however large.
        daily: Set it aside when a new day begins (UTC).
        keep: Most files set aside that stay; None: all.
        keep_days: Longest that they stay; None: for ever.
        compress: Pack them with gzip, in a thread of its own.
        fsync: When to wait until a power cut costs nothing: `never`; `rotate`: when a file is set aside;
            `always`: after each verdict. That takes the disk's time from every verdict, unless `delivery: {}`
            gives the sink a thread.
    """

    kind: Literal["jsonl"]
    path: str
    max_mb: float | None = None
    daily: bool = False
    keep: int | None = None
    keep_days: float | None = None
    compress: bool = False
    fsync: Literal["never", "rotate", "always"] = "never"

    def __post_init__(self) -> None:
        check_ranges(
            ("max_mb", self.max_mb, 0.001, 1_000_000),
            ("keep", self.keep, 0, 1_000_000),
            ("keep_days", self.keep_days, 0.001, 36_500),
        )
        rotates = self.max_mb is not None or self.daily
        for name, given in (
            ("keep", self.keep is not None),
            ("keep_days", self.keep_days is not None),
            ("compress", self.compress),
        ):
            if given and not rotates:
                raise ValueError(f"{name}: needs max_mb or daily; without them no file is ever set aside")


class JsonlSink(Sink):
    """Appends each verdict as a line and hands it to the operating system at once.

    The file holds whole lines at any moment, also after a kill and on a full disk.
    """

    def __init__(self, config: Config) -> None:
        self._config, self._path = config, Path(config.path)
        self._encode = msgspec.json.Encoder().encode
        self._descriptor, self._size, self._day = -1, 0, 0
        self._shelf, self._complaints = _Shelf(self._path, config), Seldom()
        try:
            _mend(self._path)
            self._open()
        except OSError as error:
            raise ConfigError(f"path: cannot write {config.path}: {error.strerror}") from error
        self._shelf.tidy()

    def write(self, verdict: FrameVerdict) -> None:
        """Appends one line.

        Raises:
            OSError: The disk is full or gone; of this line nothing is left in the file.
        """
        line = self._encode(verdict) + b"\n"
        self._rotate_if_due(len(line))
        # Unbuffered: a killed service leaves every verdict that it gave, and no half line of another.
        written = os.write(self._descriptor, line)
        if written < len(line):
            os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_CUR) - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += len(line)
        if self._config.fsync == "always":
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file, and waits until what was set aside is packed."""
        if self._descriptor >= 0:
            if self._config.fsync != "never":
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._shelf.wait()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o644)
        found = os.fstat(self._descriptor)
        self._size = found.st_size
        # A file of yesterday, from an earlier run, is yesterday's.
        self._day = _day(found.st_mtime if found.st_size else time.time())

    def _rotate_if_due(self, more: int) -> None:
        config = self._config
        full = config.max_mb is not None and self._size + more > config.max_mb * 1e6
        if self._size == 0 or not (full or (config.daily and _day(time.time()) != self._day)):
            if self._size == 0:
                self._day = _day(time.time())
            return
        try:
            self._rotate()
        except OSError as error:  # better too large a file than a lost verdict
            if self._complaints.silenced() is not None:
                log.error("%s: cannot be set aside, and grows on: %s", self._path, error)

    def _rotate(self) -> None:
        if self._config.fsync != "never":
            os.fsync(self._descriptor)
        old, aside = self._descriptor, self._shelf.name_for(time.time())
        self._path.rename(aside)
        try:
            self._open()
        except OSError:
            aside.rename(self._path)
            raise
        os.close(old)
        self._shelf.tidy()


class _Shelf:
    """The files that were set aside: their names, packing, and how long they stay."""

    def __init__(self, path: Path, config: Config) -> None:
        self._path, self._config = path, config
        self._thread: threading.Thread | None = None
        self._again = False
        self._lock = threading.Lock()
        self._last = ("", 0)  # moment and count of the name that was given last

    def name_for(self, now_s: float) -> Path:
        """A name that no file has, and that sorts after all before it, also if the clock is set back."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        last, count = self._last
        self._last = (moment, 0) if moment > last else (last, count + 1)
        while True:
            moment, count = self._last
            more = f".{count:06}" if count else ""
            aside = self._path.with_name(f"{self._path.stem}-{moment}{more}{self._path.suffix}")
            if not (aside.exists() or aside.with_name(aside.name + ".gz").exists()):
                return aside
            self._last = (moment, count + 1)

    def files(self) -> list[Path]:
        """What was set aside, oldest first."""
        pattern = f"{_literal(self._path.stem)}-????????T??????Z*{_literal(self._path.suffix)}"
        found = [*self._path.parent.glob(pattern), *self._path.parent.glob(pattern + ".gz")]
        return sorted(found, key=lambda file: file.name.removesuffix(".gz").removesuffix(self._path.suffix))

    def tidy(self) -> None:
        """Packs and deletes, in a thread of its own: no verdict waits for it."""
        if not (self._config.max_mb is not None or self._config.daily):
            return
        with self._lock:
            self._again = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="jsonl-tidy", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Waits until all is done."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._again:
                    self._thread = None
                    return
                self._again = False
            try:
                self._delete()
                if self._config.compress:
                    for file in self.files():
                        if file.suffix != ".gz":
                            _pack(file)
            except OSError as error:
                log.error("%s: what was set aside cannot be packed or deleted: %s", self._path, error)

    def _delete(self) -> None:
        files = self.files()
        surplus = files[: len(files) - self._config.keep] if self._config.keep is not None else []
        oldest_s = time.time() - (self._config.keep_days or 0) * 86_400
        for file in files:
            if file in surplus or (self._config.keep_days is not None and file.stat().st_mtime < oldest_s):
                file.unlink(missing_ok=True)


def create(config: Config) -> JsonlSink:
    """Opens the file.

    Raises:
        ConfigError: It cannot be written.
    """
    return JsonlSink(config)


def _day(time_s: float) -> int:
    return int(time_s // 86_400)


def _literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _pack(file: Path) -> None:
    """Replaces a file by its packed copy, which has its name only once it is whole."""
    packed, part = file.with_name(file.name + ".gz"), file.with_name(f".{file.name}.gz.part")
    try:
        with file.open("rb") as plain, gzip.open(part, "wb", compresslevel=6) as out:
            shutil.copyfileobj(plain, out, 1 << 20)
        with part.open("rb+") as whole:
            os.fsync(whole.fileno())  # before the original goes
        times = file.stat()
        os.utime(part, (times.st_atime, times.st_mtime))
        part.replace(packed)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    file.unlink()


def _mend(path: Path) -> None:
    """Sets a half line at the file's end aside: a power cut left it, and the next line must not follow it."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        size = file.seek(-1, os.SEEK_END) + 1
        if file.read(1) == b"\n":
            return
        start = max(0, size - _LONGEST_LINE)
        file.seek(start)
        tail = file.read()
        whole = start + tail.rfind(b"\n") + 1  # without any: all of it
        aside = path.with_name(f"{path.name}.broken-{time.time_ns()}")
        aside.write_bytes(tail[whole - start :])
        file.truncate(whole)
    log.warning(
        "%s: its last %d bytes were no whole line, from a power cut; they are kept in %s",
        path,
        size - whole,
        aside.name,
    )
