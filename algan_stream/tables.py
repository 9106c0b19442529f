"""Tables of feature vectors, one a row: `.npy` (rows, features), or CSV with a header. Never pickle.

In a CSV the columns `label`, `split` and `id` are about the row, all others are features. The delimiter is
the one of comma, semicolon and tab that the header has most of; numbers have a decimal point; an empty cell
is a number that is missing. Rows count from 0, without header and empty lines.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.types import MAX_FEATURES, VectorSpec

SUFFIXES = (".csv", ".npy")
#: Columns of a CSV that are no features.
LABEL, SPLIT, ID = "label", "split", "id"


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers.

    Attributes:
        path: Where it was read.
        values: (rows, features) float32; NaN or infinite where a number is missing or beyond float32.
        names: Names of the features, or empty.
        about: The columns `label`, `split` and `id`, each where the table has it, one text for each row.
    """

    path: Path
    values: npt.NDArray[np.float32]
    names: tuple[str, ...] = ()
    about: dict[str, list[str]] = field(default_factory=dict)

    def row_name(self, row: int) -> str:
        """The row's own id, or its number."""
        return self.about[ID][row] if ID in self.about else str(row)


def is_table(path: Path) -> bool:
    """Whether a path is a file of a table, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def list_tables(path: Path) -> list[Path]:
    """The tables in a folder, not below it, sorted by name; or the one file that `path` is.

    Raises:
        InputError: The folder holds none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if is_table(file))
    if not files:
        raise InputError(f"{path}: holds no table; expected files {' or '.join(SUFFIXES)}, one vector a row")
    return files


def read_table(path: Path) -> Table:
    """Reads a table.

    Raises:
        InputError: It cannot be read, has no rows, is not numeric, or (npy) holds objects.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: expected a table, {' or '.join(SUFFIXES)}")
    table = _read_npy(path) if path.suffix.lower() == ".npy" else _read_csv(path)
    rows, features = table.values.shape
    if rows == 0:
        raise InputError(f"{path}: holds no rows; expected one feature vector a row")
    if not 1 <= features <= MAX_FEATURES:
        raise InputError(f"{path}: expected 1 to {MAX_FEATURES} features a row, got {features}")
    return table


def require_finite(table: Table) -> None:
    """Refuses missing and infinite numbers.

    Raises:
        InputError: There are some; the message names the first one's row and column.
    """
    bad = ~np.isfinite(table.values)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        name = repr(table.names[column]) if table.names else column
        raise InputError(
            f"{table.path}: row {row}, column {name}: expected a finite number, got "
            f"{table.values[row, column]} ({int(bad.any(axis=1).sum())} of {len(bad)} rows have such); "
            "mend or remove them"
        )


def require_fit(table: Table, spec: VectorSpec) -> None:
    """Refuses a table of other features than a model's.

    Raises:
        InputError: It has another number of features, or names them otherwise.
    """
    if table.values.shape[1] != spec.features:
        raise InputError(
            f"{table.path}: expected {spec.features} features as in training, got {table.values.shape[1]}"
        )
    if table.names and spec.names and table.names != spec.names:
        at = next(i for i, (a, b) in enumerate(zip(table.names, spec.names, strict=True)) if a != b)
        raise InputError(
            f"{table.path}: feature {at}: expected {spec.names[at]!r} as in training, got "
            f"{table.names[at]!r}; bring the columns into the order of training"
        )


def row_hashes(values: npt.NDArray[np.float32]) -> Iterator[str]:
    """SHA-256 of each row's numbers as little-endian float32, in hex: knows a vector again anywhere."""
    for row in np.ascontiguousarray(values, "<f4"):
        yield hashlib.sha256(row.tobytes()).hexdigest()


def _read_npy(path: Path) -> Table:
    try:
        # Mapped, so that a header that promises more than the file holds is refused before any allocation.
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, OverflowError) as error:
        raise InputError(f"{path}: expected a .npy array of numbers, no Python objects: {error}") from error
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected numbers of shape (rows, features), got {array.dtype} {array.shape}"
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused or unknown later
        return Table(path, np.array(array, np.float32, order="C"))


def _read_csv(path: Path) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            header = [name.strip() for name in next(reader, [])]
            columns = _feature_columns(path, header)
            rows, about = _read_rows(path, reader, header, columns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not a CSV file in UTF-8: {error}") from error
    with np.errstate(over="ignore"):
        values = np.array(rows, np.float64).reshape(len(rows), len(columns)).astype(np.float32)
    return Table(path, values, tuple(header[i] for i in columns), about)


def _feature_columns(path: Path, header: list[str]) -> list[int]:
    if len(set(header)) != len(header) or not all(header):
        raise InputError(f"{path}: expected a header with a different name for each column, got {header[:8]}")
    roles = (LABEL, SPLIT, ID)
    if slips := [name for name in header if name.casefold() in roles and name not in roles]:
        raise InputError(
            f"{path}: column {slips[0]!r}: write it {slips[0].casefold()!r}, or name it otherwise"
        )
    columns = [i for i, name in enumerate(header) if name not in roles]
    if not columns:
        raise InputError(f"{path}: expected feature columns beside {', '.join(header) or 'nothing'}")
    numbers = [number for i in columns if (number := _number(header[i])) is not None]
    steps = [b - a for a, b in pairwise(numbers)]
    # Wavelengths are names too, but they go one way; a row of data that lacks its header does not.
    one_way = len(steps) > 1 and (all(s > 0 for s in steps) or all(s < 0 for s in steps))
    if len(numbers) == len(columns) and not one_way:
        raise InputError(f"{path}: the first line looks like data; put the columns' names before it")
    return columns


def _read_rows(
    path: Path, reader: Iterator[list[str]], header: list[str], columns: list[int]
) -> tuple[list[list[float]], dict[str, list[str]]]:
    rows: list[list[float]] = []
    about: dict[str, list[str]] = {name: [] for name in header if name in (LABEL, SPLIT, ID)}
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            raise InputError(f"{path}: row {len(rows)}: expected {len(header)} cells, got {len(cells)}")
        numbers = []
        for i in columns:
            number = _number(cells[i])
            if number is None:
                raise InputError(
                    f"{path}: row {len(rows)}, column {header[i]!r}: expected a number, got {cells[i]!r}"
                )
            numbers.append(number)
        rows.append(numbers)
        for name, texts in about.items():
            texts.append(cells[header.index(name)].strip())
    return rows, about


def _number(cell: str) -> float | None:
    """The cell's number, NaN for an empty cell, None for a text."""
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError:
        return None
