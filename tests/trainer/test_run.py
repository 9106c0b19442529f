from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algan_stream.errors import AlganError, BundleError, ImageError
from algan_trainer import run as run_module
from algan_trainer.algan import DivergedError
from algan_trainer.checkpoint import CheckpointError, exclusive, read_checkpoint, write_checkpoint
from algan_trainer.config import Config, override
from algan_trainer.run import LAST, TrainingInterruptedError, run
from algan_trainer.session import Request

SOURCES = Path(__file__).parents[2]


def request_for(data: Path, out: Path, **changes: Any) -> Request:
    return Request(data=data, out=out, work_dir=out.with_name(out.name + ".training"), threads=1, **changes)


def last(out: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return read_checkpoint(out.with_name(out.name + ".training") / LAST)


def assert_same(a: Path, b: Path) -> None:
    """Bit for bit, in everything but the clock."""
    (arrays_a, facts_a), (arrays_b, facts_b) = last(a), last(b)
    assert arrays_a.keys() == arrays_b.keys()
    for name, array in arrays_a.items():
        assert np.array_equal(array, arrays_b[name]), name
    for facts in (facts_a, facts_b):
        facts["journal"].pop("seconds")
        for row in facts["journal"]["curve"]:
            row.pop("seconds")
    assert facts_a == facts_b


@pytest.fixture
def four(tiny: Config) -> Config:
    return override(tiny, {"epochs": 4, "validate_every": 2})


def test_resumed_training_is_bitwise_the_same(four: Config, mvtec: Path, tmp_path: Path) -> None:
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    run(four, {}, request_for(mvtec, straight))
    with pytest.raises(TrainingInterruptedError, match="--resume"):
        run(four, {}, request_for(mvtec, halves, stop_after_epochs=2))
    assert not halves.exists()
    run(four, {}, request_for(mvtec, halves, resume=True))
    assert_same(straight, halves)
    models = [(path / "discriminator.onnx").read_bytes() for path in (straight, halves)]
    assert models[0] == models[1]


def test_resume_in_the_middle_of_an_epoch_is_bitwise_the_same(
    four: Config, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run(four, {}, request_for(good_folder, straight))
    save, saved = run_module._save, []

    def kill_after_saving(state: Any, *rest: Any) -> None:
        save(state, *rest)
        saved.append(state.batch)
        if len(saved) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "SAVE_EVERY_S", 0.0)
        patch.setattr(run_module, "_save", kill_after_saving)
        with pytest.raises(KeyboardInterrupt):
            run(four, {}, request_for(good_folder, broken))
    assert saved[-1] != 0
    run(None, {}, request_for(good_folder, broken, resume=True))  # the configuration is the checkpoint's
    assert_same(straight, broken)


def test_more_epochs_continue_a_finished_training(four: Config, good_folder: Path, tmp_path: Path) -> None:
    straight, longer = tmp_path / "straight", tmp_path / "longer"
    run(override(four, {"epochs": 6}), {}, request_for(good_folder, straight))
    run(four, {}, request_for(good_folder, longer))
    bundle = run(None, {"epochs": 6}, request_for(good_folder, longer, resume=True))
    assert bundle.manifest.provenance["epochs"] == 6
    assert_same(straight, longer)


def test_resume_without_a_checkpoint_starts(four: Config, good_folder: Path, tmp_path: Path) -> None:
    assert run(four, {"epochs": 1}, request_for(good_folder, tmp_path / "b", resume=True)).path.is_dir()


def test_resume_with_other_settings_or_images_is_refused(
    four: Config, good_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    with pytest.raises(TrainingInterruptedError):
        run(four, {}, request_for(good_folder, out, stop_after_epochs=1))
    with pytest.raises(CheckpointError, match="add --resume"):
        run(four, {}, request_for(good_folder, out))
    with pytest.raises(CheckpointError, match=r"algan\.xi was 0\.75, now 0\.5"):
        run(None, {"algan.xi": 0.5}, request_for(good_folder, out, resume=True))
    (good_folder / "000.png").unlink()
    with pytest.raises(CheckpointError, match="the images or their split"):
        run(None, {}, request_for(good_folder, out, resume=True))


def test_damaged_checkpoint_is_named(four: Config, good_folder: Path, tmp_path: Path) -> None:
    request = request_for(good_folder, tmp_path / "b", resume=True)
    request.work_dir.mkdir(parents=True)
    (request.work_dir / LAST).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CheckpointError, match=r"last\.npz: cannot be read"):
        run(four, {}, request)


def test_a_finished_training_may_be_started_over(four: Config, good_folder: Path, tmp_path: Path) -> None:
    config = override(four, {"epochs": 1})
    first = run(config, {}, request_for(good_folder, tmp_path / "b"))
    with pytest.raises(BundleError, match="add --overwrite"):
        run(config, {"seed": 5}, request_for(good_folder, tmp_path / "b"))
    again = run(config, {"seed": 5}, request_for(good_folder, tmp_path / "b", overwrite=True))
    assert first.model_sha256 != again.model_sha256


def test_target_is_checked_before_training(four: Config, good_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("precious")
    with pytest.raises(BundleError, match="is not a bundle"):
        run(four, {}, request_for(good_folder, tmp_path / "b"))
    assert not (tmp_path / "b.training").exists()


def test_a_second_training_in_the_same_folder_is_refused(
    four: Config, good_folder: Path, tmp_path: Path
) -> None:
    request = request_for(good_folder, tmp_path / "b")
    with exclusive(request.work_dir), pytest.raises(CheckpointError, match="another training is running"):
        run(four, {}, request)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    write_checkpoint(tmp_path / "c.npz", {"a": np.ones(2)}, {"n": 1})
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_checkpoint(tmp_path / "c.npz", {"a": np.zeros(2)}, {"n": 2})
    assert read_checkpoint(tmp_path / "c.npz")[1] == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_corrupt_image_is_named_before_training(four: Config, good_folder: Path, tmp_path: Path) -> None:
    (good_folder / "003.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"003\.png"):
        run(four, {}, request_for(good_folder, tmp_path / "b"))


def test_divergence_keeps_the_last_good_checkpoint(
    four: Config, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from algan_trainer import algan

    def diverge(*_: object) -> Any:
        return sound(*_) * float("nan") if spoilt else sound(*_)

    sound, spoilt = algan.fake_loss, []
    monkeypatch.setattr(algan, "fake_loss", diverge)
    save = run_module._save

    def spoil_after_saving(*arguments: Any) -> None:
        save(*arguments)
        spoilt.append(True)

    monkeypatch.setattr(run_module, "_save", spoil_after_saving)
    with pytest.raises(DivergedError, match="nan in epoch 3"):
        run(four, {}, request_for(good_folder, tmp_path / "b"))
    arrays, facts = last(tmp_path / "b")
    assert facts["epoch"] == 2
    assert all(np.isfinite(a).all() for a in arrays.values())


def test_kept_checkpoints(four: Config, good_folder: Path, tmp_path: Path) -> None:
    request = request_for(good_folder, tmp_path / "b")
    run(override(four, {"keep_every": 2}), {}, request)
    assert {p.name for p in request.work_dir.glob("*.npz")} == {
        LAST,
        "best-label_free.npz",
        "epoch-00002.npz",
        "epoch-00004.npz",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_a_checkpoint_to_resume(
    number: signal.Signals, good_folder: Path, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    out, log = tmp_path / "b", tmp_path / "log"
    code = "from algan_stream.cli import main; main()"
    options = ["--size=32", "--width=4", "--epochs=100000", "--precision=fp32", "--threads=1", "--out"]
    command = [sys.executable, "-c", code, "train", str(good_folder), *options, str(out)]
    with log.open("w") as file, subprocess.Popen(command, stderr=file, cwd=SOURCES) as process:
        try:
            wait_for(lambda: "epoch 8/" in log.read_text(), 60)
            process.send_signal(number)
            assert process.wait(30) == 130
        finally:
            process.kill()
    assert "--resume" in log.read_text()
    epoch = last(out)[1]["epoch"]
    assert epoch >= 8
    assert run(None, {"epochs": epoch + 1}, request_for(good_folder, out, resume=True)).path == out


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool], float], None]:
    def wait(condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "took too long"
            time.sleep(0.05)

    return wait


def test_log_has_one_line_for_each_validation(
    four: Config, mvtec: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(four, {}, request_for(mvtec, tmp_path / "b"))
    lines = capfd.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["2/4", "4/4"]
    assert any("layout mvtec" in line for line in lines)
    assert any(line.startswith("calibration: 4 good images, false-reject rate 0.2") for line in lines)


def test_every_error_has_an_exit_code_of_its_own() -> None:
    errors = (DivergedError, CheckpointError, TrainingInterruptedError)
    assert all(issubclass(error, AlganError) for error in errors)
    assert len({error.exit_code for error in errors}) == len(errors)
    assert os.EX_OK not in {error.exit_code for error in errors}


def test_another_training_in_the_same_place_never_exports_what_was_kept_there(
    four: Config, good_folder: Path, tmp_path: Path
) -> None:
    first = run(four, {}, request_for(good_folder, tmp_path / "b"))
    kept = tmp_path / "b.training" / "best-label_free.npz"
    assert kept.exists()
    # Ended before its first validation, and then said to be complete.
    short = override(four, {"seed": 7, "validate_every": 100})
    again = replace(request_for(good_folder, tmp_path / "b"), overwrite=True)
    with pytest.raises(TrainingInterruptedError):
        run(short, {}, replace(again, stop_after_epochs=2))
    assert not kept.exists()
    second = run(short, {"epochs": 2}, replace(again, resume=True))
    chosen = second.manifest.provenance["checkpoint"]
    assert chosen["epoch"] == chosen["best"]["label_free"]["epoch"] == 2
    assert second.model_sha256 != first.model_sha256


def test_a_kept_checkpoint_that_is_not_the_journal_s_is_refused(
    four: Config, good_folder: Path, tmp_path: Path
) -> None:
    request = request_for(good_folder, tmp_path / "b")
    with pytest.raises(TrainingInterruptedError):
        run(four, {}, replace(request, stop_after_epochs=2))
    path = request.work_dir / "best-label_free.npz"
    arrays, facts = read_checkpoint(path)
    write_checkpoint(path, arrays, facts | {"epoch": 1})
    with pytest.raises(CheckpointError, match="got that of epoch 1"):
        run(four, {"epochs": 2}, replace(request, resume=True))


def test_epochs_between_validations_are_kept_where_wanted(
    four: Config, good_folder: Path, tmp_path: Path
) -> None:
    request = request_for(good_folder, tmp_path / "b")
    run(override(four, {"keep_every": 1, "validate_every": 4}), {}, request)
    assert len(list(request.work_dir.glob("epoch-*.npz"))) == 4
