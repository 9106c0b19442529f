"""Tables of vectors: what is read, and what is refused by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from algan_stream.errors import InputError
from algan_stream.tables import list_tables, read_table, require_finite, require_fit, row_hashes
from algan_stream.types import VectorSpec


@pytest.mark.parametrize("slip", ["Label", "ID", "SPLIT"])
def test_a_role_column_in_other_letters_is_never_taken_for_a_feature(tmp_path: Path, slip: str) -> None:
    (tmp_path / "t.csv").write_text(f"a,b,{slip}\n1,2,0\n3,4,1\n")
    with pytest.raises(InputError, match=f"column '{slip}': write it '{slip.casefold()}'"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_number(tmp_path: Path, dtype: type, order: str) -> None:
    values = np.arange(12).reshape(4, 3).astype(dtype, order=order)
    np.save(tmp_path / "t.npy", values)
    table = read_table(tmp_path / "t.npy")
    assert table.values.dtype == np.float32
    assert table.values.flags.c_contiguous
    assert np.array_equal(table.values, values)
    assert table.names == ()
    assert table.row_name(2) == "2"


def _csv(tmp_path: Path, text: str) -> Path:
    (tmp_path / "t.csv").write_text(text, "utf-8")
    return tmp_path / "t.csv"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_columns_about_the_row(tmp_path: Path, delimiter: str) -> None:
    text = "id,a,label,b\nx-1,1.5,good,-2\n\nx-2,,crack,3e3\n".replace(",", delimiter)
    table = read_table(_csv(tmp_path, "\N{BYTE ORDER MARK}" + text))
    assert table.names == ("a", "b")
    assert np.array_equal(table.values, np.array([[1.5, -2], [np.nan, 3000]], np.float32), equal_nan=True)
    assert table.about == {"id": ["x-1", "x-2"], "label": ["good", "crack"]}
    assert table.row_name(1) == "x-2"


@pytest.mark.parametrize("header", ["400,410.5,421", "4000,3000,2000"])
def test_wavelengths_are_names(tmp_path: Path, header: str) -> None:
    table = read_table(_csv(tmp_path, header + "\n1,2,3\n"))
    assert table.names == tuple(header.split(","))
    assert len(table.values) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected feature columns beside nothing"),
        ("a,b\n", "holds no rows"),
        ("a,a\n1,2\n", "a different name for each column"),
        ("a,\n1,2\n", "a different name for each column"),
        ("id,label\n1,good\n", "expected feature columns beside id, label"),
        ("1.5,0.2,3.1\n1,2,3\n", "the first line looks like data"),
        ("1.5\n2.5\n", "the first line looks like data"),
        ("a,b\n1,2\n1,2,3\n", "row 1: expected 2 cells, got 3"),
        ("a,b\n1,2\n1,\n3\n", "row 2: expected 2 cells, got 1"),
        ("a,b\n1,2\n1,lots\n", "row 1, column 'b': expected a number, got 'lots'"),
        ("a;b\n1;2,5\n", "row 0, column 'b': expected a number, got '2,5'"),
    ],
)
def test_csv_that_is_no_table(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(_csv(tmp_path, text))


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not a CSV file in UTF-8"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"expected numbers of shape \(rows, features\), got float64 \(3,\)"),
        (np.zeros((2, 3, 4)), "expected numbers of shape"),
        (np.zeros((2, 3), complex), "got complex128"),
        (np.zeros((2, 3), bool), "got bool"),
        (np.array([["a", "b"]]), "got <U1"),
        (np.zeros((0, 3)), "holds no rows"),
        (np.zeros((3, 0)), "expected 1 to 1048576 features a row, got 0"),
    ],
)
def test_npy_that_is_no_table(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.npy")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([[1, "a"]], object), allow_pickle=True)
    with pytest.raises(InputError, match="no Python objects"):
        read_table(tmp_path / "t.npy")


def test_a_header_that_promises_too_much_is_refused_before_any_allocation(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.zeros((10, 10)))
    raw = (tmp_path / "t.npy").read_bytes()
    lie = raw.replace(b"(10, 10), }" + b" " * 10, b"(1000000, 1000000), }")  # 8 TB, had it been true
    assert len(lie) == len(raw)
    (tmp_path / "t.npy").write_bytes(lie)
    with pytest.raises(
        InputError, match=r"expected a \.npy array of numbers, no Python objects: mmap length"
    ):
        read_table(tmp_path / "t.npy")


def test_other_files_under_these_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.npy", "w") as archive:
        archive.writestr("a.npy", b"")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    for name in ("z.npy", "empty.npy", "folder.npy", "missing.npy", "missing.csv"):
        with pytest.raises(InputError, match=name):
            read_table(tmp_path / name)
    with pytest.raises(InputError, match=r"expected a table, \.csv or \.npy"):
        read_table(tmp_path / "t.parquet")


def test_missing_numbers_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([[1, 2], [3, np.nan], [np.inf, 1], [5, 6]]))
    with pytest.raises(InputError, match=r"row 1, column 1: expected a finite number, got nan \(2 of 4 rows"):
        require_finite(read_table(tmp_path / "t.npy"))
    with pytest.raises(InputError, match="row 0, column 'b': expected a finite number, got inf"):
        require_finite(read_table(_csv(tmp_path, "a,b\n1,1e300\n")))  # beyond float32
    require_finite(read_table(_csv(tmp_path, "a,b\n1,1e30\n")))


def test_a_table_must_be_the_models(tmp_path: Path) -> None:
    table = read_table(_csv(tmp_path, "a,b\n1,2\n"))
    require_fit(table, VectorSpec(features=2))
    require_fit(table, VectorSpec(features=2, names=("a", "b")))
    with pytest.raises(InputError, match="expected 3 features as in training, got 2"):
        require_fit(table, VectorSpec(features=3))
    with pytest.raises(InputError, match="feature 0: expected 'b' as in training, got 'a'"):
        require_fit(table, VectorSpec(features=2, names=("b", "a")))


def test_a_folder_of_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no table"):
        list_tables(tmp_path)
    for name in ("b.csv", "a.npy", "c.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_tables(tmp_path)] == ["a.npy", "b.csv"]
    assert list_tables(tmp_path / "c.txt") == [tmp_path / "c.txt"]


def test_a_vector_is_known_by_its_numbers() -> None:
    values = np.array([[1, 2], [1, 2], [2, 1]], np.float32)
    first, again, other = row_hashes(values)
    assert first == again != other
    assert list(row_hashes(np.asfortranarray(values))) == [first, again, other]
