"""A bundle is whole, unaltered and in a known format, or it is not opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from algan_stream.bundle import (
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    read_bundle,
    replace_calibration,
    write_bundle,
)
from algan_stream.calibration import with_raw_threshold
from algan_stream.errors import BundleError
from bundles import make_bundle


def _edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> Path:
    """Changes the manifest as a hand or a program might."""
    path = bundle.path / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    return bundle.path


def _with_golden(bundle: Bundle, spoil: Callable[[Path], object]) -> Bundle:
    """The bundle written anew, its sums right, around another golden file."""
    staged = bundle.path.with_name("staged")
    shutil.copytree(bundle.path, staged)
    (staged / MANIFEST).unlink()
    spoil(staged / GOLDEN)
    return write_bundle(bundle.path, staged, bundle.manifest)


def test_what_was_written_is_read(own_bundle: Bundle) -> None:
    again = read_bundle(own_bundle.path)
    assert again == own_bundle
    assert set(again.manifest.files) == {MODEL, GOLDEN}
    golden = again.golden()
    assert golden.inputs.shape == (4, 5, 32, 32)
    assert golden.images_rgb.shape == (4, 32, 32, 3)


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_one_changed_byte_is_noticed(own_bundle: Bundle, name: str) -> None:
    path = own_bundle.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: has been altered"):
        read_bundle(own_bundle.path)


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_truncated_or_missing_file_is_noticed(own_bundle: Bundle, name: str) -> None:
    path = own_bundle.path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="has been altered"):
        read_bundle(own_bundle.path)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name}: is missing"):
        read_bundle(own_bundle.path)


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_file_that_the_manifest_forgets_is_noticed(own_bundle: Bundle, name: str) -> None:
    path = _edit(own_bundle, lambda m: m["files"].pop(name))
    with pytest.raises(BundleError, match=f"does not list {name}"):
        read_bundle(path)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "report/../../secret", "a/../../../b"])
def test_no_path_leads_out(own_bundle: Bundle, name: str) -> None:
    (own_bundle.path.parent / "secret").write_text("x")
    path = _edit(own_bundle, lambda m: m["files"].update({name: {"sha256": "0" * 64, "size_bytes": 1}}))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format_version 2 is newer than 1.*upgrade algan-stream"),
        (lambda m: m.update(format_version=99, surprise={}), "format_version 99 is newer"),
        (lambda m: m.update(format_version="1"), "format_version: expected a whole number from 1, got '1'"),
        (lambda m: m.update(format_version=0), "format_version: expected a whole number from 1, got 0"),
        (lambda m: m.pop("format_version"), "format_version: expected a whole number from 1, got None"),
        (lambda m: m.update(surprise=1), "unknown field `surprise`"),
        (lambda m: m["input_spec"].update(hight_px=3), "unknown field `hight_px` - at `[$].input_spec`"),
        (lambda m: m["input_spec"].update(height_px=0), "input_spec.height_px: expected 1 to 4096, got 0"),
        (lambda m: m["input_spec"].update(std=[1, 0, 1]), "input_spec.std: expected finite numbers above 0"),
        (lambda m: m.update(model_kind="other"), "model_kind"),
        (lambda m: m.update(score="logit"), "score"),
        (lambda m: m["calibration"].update(threshold=None), "threshold"),
        (lambda m: m.pop("tolerance"), "missing required field `tolerance`"),
    ],
)
def test_a_manifest_that_says_something_else(own_bundle: Bundle, change: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_bundle(_edit(own_bundle, change))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": "\xff"}', b'{"a": 1e999}', b"\x00" * 50]
)
def test_a_manifest_that_is_not_one(own_bundle: Bundle, raw: bytes) -> None:
    (own_bundle.path / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError, match=MANIFEST):
        read_bundle(own_bundle.path)


def test_a_place_without_a_bundle(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match="is not a model bundle"):
            read_bundle(path)


def _pickled(path: Path) -> None:
    np.savez(path, images_rgb=np.array([{}], object), inputs=np.array([{}], object), logits=np.zeros(1))


def _plain_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _arrays(**change: Any) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with np.load(path) as archive:
            arrays = {**archive, **change}
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        _pickled,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 100),
        _flip_a_byte,
        _plain_array,
        _arrays(logits=None),
        _arrays(logits=np.zeros((4, 1), np.float32)),
        _arrays(logits=np.zeros(3, np.float32)),
        _arrays(logits=np.zeros(0, np.float32)),
        _arrays(logits=np.full(4, np.nan, np.float32)),
        _arrays(inputs=np.zeros((4, 5, 32, 32))),
        _arrays(inputs=np.zeros((4, 3, 32, 32), np.float32)),
        _arrays(images_rgb=np.zeros((3, 32, 32, 3), np.uint8)),
        _arrays(images_rgb=np.zeros((4, 32, 32), np.uint8)),
        _arrays(images_rgb=np.zeros((4, 32, 32, 3), np.float32)),
    ],
)
def test_golden_files_that_are_none(own_bundle: Bundle, spoil: Callable[[Path], object]) -> None:
    opened = _with_golden(own_bundle, spoil)
    with pytest.raises(BundleError, match=GOLDEN):
        opened.golden()


def test_writing_replaces_a_bundle_and_leaves_nothing_behind(own_bundle: Bundle) -> None:
    other = make_bundle(own_bundle.path, seed=1)
    assert other.model_sha256 != own_bundle.model_sha256
    assert read_bundle(own_bundle.path) == other
    assert [p.name for p in own_bundle.path.parent.iterdir()] == ["bundle"]


def test_a_failed_replacement_leaves_the_old_bundle(
    own_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fails_for_staged(self: Path, target: Path) -> Path:
        if self.name == "staged":
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    staged = own_bundle.path.with_name("staged")
    shutil.copytree(own_bundle.path, staged)
    (staged / MANIFEST).unlink()
    monkeypatch.setattr(Path, "rename", fails_for_staged)
    with pytest.raises(BundleError, match="cannot be moved"):
        write_bundle(own_bundle.path, staged, own_bundle.manifest)
    assert read_bundle(own_bundle.path) == own_bundle
    assert sorted(p.name for p in own_bundle.path.parent.iterdir()) == ["bundle", "staged"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_only_a_bundle_is_ever_replaced(own_bundle: Bundle, tmp_path: Path, what: str) -> None:
    target = tmp_path / "precious"
    if what == "file":
        target.write_text("thesis")
    else:
        target.mkdir()
        (target / "thesis").write_text("thesis")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        make_bundle(target)
    assert target.exists()
    assert what == "file" or (target / "thesis").read_text() == "thesis"


def test_an_empty_folder_may_become_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert make_bundle(tmp_path / "new").path == tmp_path / "new"
    assert make_bundle(tmp_path / "deep").manifest.name == "test"


def test_a_new_calibration_is_stored_atomically(own_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = replace_calibration(own_bundle, with_raw_threshold([1.0], 0.5))
    assert read_bundle(own_bundle.path) == changed
    assert changed.manifest.calibration == with_raw_threshold([1.0], 0.5)
    assert changed.model_sha256 == own_bundle.model_sha256
    names = sorted(file.name for file in own_bundle.path.iterdir())
    assert names == sorted([MANIFEST, MODEL, GOLDEN])

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        replace_calibration(own_bundle, with_raw_threshold([2.0], 7.5))
    assert read_bundle(own_bundle.path) == changed
    assert sorted(file.name for file in own_bundle.path.iterdir()) == names


def test_the_manifest_is_readable_by_people_and_by_others(own_bundle: Bundle) -> None:
    path = own_bundle.path / MANIFEST
    assert path.stat().st_mode & 0o777 == 0o644
    assert len(path.read_text().splitlines()) > 10
    assert msgspec.json.decode(path.read_bytes())["format_version"] == 1
