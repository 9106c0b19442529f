"""`manifest`: a CSV table that lists images, `path,kind,split[,mask][,group]`.

`path` and `mask` are relative to the table's folder; `kind` is `good` or the type of defect; `split` is one
of train, calibration, validation, test, or empty in every row: then, or with a random split, good images are
split 50/25/25 and defective ones 50/50, as the paper splits MTD. `group` names the part that an image shows.
The data given to a command is the table, or its folder if the table is called `manifest.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from algan_stream.errors import InputError
from algan_trainer.data.dataset import GOOD, SPLITS, Sample
from algan_trainer.data.found import HALF_AND_QUARTERS, HALVES, Found, file_below

NAME = "manifest.csv"
_COLUMNS = ("path", "kind", "split", "mask", "group")
_NEEDED = ("path", "kind")
#: Errors named in one message.
_MOST_NAMED = 10


def is_manifest(path: Path) -> bool:
    """Whether a file is a CSV table with the columns `path` and `kind`; a table of vectors has none such."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        return False
    return set(_NEEDED) <= {column.strip() for column in header}


def file_of(root: Path) -> Path:
    """The table itself, given it or its folder."""
    return root / NAME if root.is_dir() else root


def recognises(root: Path) -> bool:
    """Whether it is such a table, or a folder with one."""
    return is_manifest(file_of(root))


def find(root: Path, split: Literal["given", "random"]) -> Found:
    """Reads the table.

    Raises:
        InputError: Rows are wrong; the message names their lines, up to 10.
    """
    table = file_of(root)
    samples: list[Sample] = []
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for line, row in _rows(table):
        try:
            sample = _sample(table, line, row)
        except InputError as error:
            wrong.append(str(error))
            continue
        if sample.path in seen:
            wrong.append(f"{table}:{line}: {sample.path} is listed in line {seen[sample.path]} already")
        seen.setdefault(sample.path, line)
        samples.append(sample)
    without = [s.path for s in samples if not s.split]
    if without and len(without) < len(samples) and split == "given":
        line = seen[without[0]]
        wrong.append(f"{table}:{line}: split is empty; expected one in every row, or in none")
    if wrong:
        more = f"\n… and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        raise InputError("\n".join(wrong[:_MOST_NAMED]) + more)
    if not samples:
        raise InputError(f"{table}: lists no images")
    if split == "random":
        samples = [Sample(s.path, s.kind, "", s.mask, s.group, s.mask_above) for s in samples]
    return Found(samples, good=HALF_AND_QUARTERS, anomalous=HALVES)


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each row."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [column.strip() for column in next(reader, [])]
            _check_header(table, header)
            for row in reader:
                if not any(field.strip() for field in row):
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{table}:{reader.line_num}: expected {len(header)} fields ({','.join(header)}), "
                        f"got {len(row)}"
                    )
                yield reader.line_num, dict(zip(header, (f.strip() for f in row), strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{table}: expected UTF-8 text: {error}") from error
    except csv.Error as error:
        raise InputError(f"{table}:{reader.line_num}: is not CSV: {error}") from error


def _check_header(table: Path, header: list[str]) -> None:
    expected = f"expected {','.join(_COLUMNS)}, of which path and kind are needed"
    if lacking := [column for column in _NEEDED if column not in header]:
        raise InputError(f"{table}:1: lacks the column {lacking[0]}; {expected}")
    if unknown := [column for column in header if column not in _COLUMNS]:
        raise InputError(f"{table}:1: unknown column {unknown[0]!r}; {expected}")
    if len(set(header)) < len(header):
        raise InputError(f"{table}:1: a column is there twice; {expected}")


def _sample(table: Path, line: int, row: dict[str, str]) -> Sample:
    where, root = f"{table}:{line}", table.parent
    kind, split, mask = row["kind"], row.get("split", ""), row.get("mask", "")
    if not row["path"]:
        raise InputError(f"{where}: path is empty")
    if not kind:
        raise InputError(f"{where}: kind is empty; expected {GOOD}, or the type of defect")
    if split not in ("", *SPLITS):
        raise InputError(f"{where}: unknown split {split!r}; expected {', '.join(SPLITS)}")
    if kind != GOOD and split in ("train", "calibration"):
        raise InputError(f"{where}: {row['path']} is defective ({kind}) but listed for {split}")
    path = Path(file_below(root, row["path"], where)).as_posix()
    mask = Path(file_below(root, mask, where)).as_posix() if mask else ""
    return Sample(path, kind, split, mask=mask, group=row.get("group", ""))
