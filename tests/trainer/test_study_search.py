from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from algan_stream.errors import ConfigError, InputError
from algan_trainer.algan import DivergedError
from algan_trainer.config import Config, override
from algan_trainer.study.conduct import StudyInterruptedError
from algan_trainer.study.plan import StudyError
from algan_trainer.study.space import Range, read_space

pytest.importorskip("optuna", reason="needs the extra [optuna]")

from algan_trainer.study import search as search_module
from algan_trainer.study.search import Search, search

#: Optuna's own stack (SQLAlchemy, alembic) is not held to this project's warnings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SPACE = {
    "adam.lr_generator": Range(low=1e-4, high=1e-3, log=True),
    "algan.n_dis": Range(low=1, high=2),
    "network.init": Range(choices=("pytorch", "dcgan")),
}


def wanted(tiny: Config, data: Path, **changes: Any) -> Search:
    base = override(tiny, {"epochs": 4, "validate_every": 2})
    return Search(**({"data": data, "base": base, "space": SPACE, "trials": 3, "threads": 1} | changes))


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "trials.csv").read_text().splitlines()))


def quiet(_text: str) -> None:
    pass


def test_a_search_runs_resumes_and_grows(
    tiny: Config, mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    best = search(wanted(tiny, mvtec, trials=1), out, quiet)
    (first,) = rows(out)
    assert first["state"] == "complete"
    assert 0 <= float(first["value"]) <= 1
    # The next trial is stopped in the middle: it is neither lost nor counted.
    train = search_module.train

    def stopped(task: Any, folder: Path, on_validation: Callable[[Any], None] | None = None) -> Any:
        def stop(row: Any) -> None:
            assert on_validation is not None
            on_validation(row)
            raise KeyboardInterrupt

        return train(task, folder, stop)

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "train", stopped)
        with pytest.raises(StudyInterruptedError, match="1 of 3 trials are done and kept"):
            search(wanted(tiny, mvtec), out, quiet)
    lines: list[str] = []
    best = search(wanted(tiny, mvtec), out, lines.append)
    assert [line[:5] for line in lines] == ["[2/3]", "[3/3]"]
    found = rows(out)
    assert [row["trial"] for row in found] == ["0", "1", "2"]
    assert {row["state"] for row in found} <= {"complete", "pruned"}
    assert found[0] == first
    resumed = (out / "trials" / found[1]["folder"] / "log.txt").read_text()
    assert "resumed: 2 epochs" in resumed
    values = [float(row["value"]) for row in found if row["state"] == "complete"]
    assert best.startswith(f"# Trial {values.index(max(values))} of 3: {max(values):.4f}")
    assert (out / "best.toml").read_text() == best
    best_file = tmp_path / "best.toml"
    best_file.write_text(best)
    from algan_trainer.config import read_config

    assert 1e-4 <= read_config(best_file).adam.lr_generator <= 1e-3  # usable as a configuration at once
    with pytest.raises(StudyError, match=r"holds another search: base\.epochs was 4, now 5"):
        search(wanted(tiny, mvtec, base=override(tiny, {"epochs": 5, "validate_every": 2})), out, quiet)


def test_without_a_defect_the_label_free_measure_is_searched_by(
    tiny: Config, good_folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    search(wanted(tiny, good_folder, trials=1), tmp_path / "out", lines.append)
    assert "label_free" in lines[0]
    with pytest.raises(InputError, match="needs good and anomalous validation samples"):
        search(wanted(tiny, good_folder, trials=1, objective="labels"), tmp_path / "other", quiet)


def test_trials_that_fall_behind_are_pruned(
    tiny: Config, mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    monkeypatch.setattr(optuna.Trial, "should_prune", lambda _self: True)
    out, lines = tmp_path / "out", list[str]()
    with pytest.raises(StudyError, match="none of 1 trials succeeded"):
        search(wanted(tiny, mvtec, trials=1), out, lines.append)
    assert lines[0].endswith("pruned after 1 validations")
    assert rows(out)[0]["state"] == "pruned"
    assert not list(out.glob("trials/*/work"))


def test_a_failed_trial_is_recorded_and_bad_images_fail_before_any(
    tiny: Config, mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any) -> None:
        raise DivergedError("the loss is nan")

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(search_module, "train", diverge)
        with pytest.raises(StudyError, match="none of 1 trials succeeded"):
            search(wanted(tiny, mvtec, trials=1), tmp_path / "out", lines.append)
    assert lines[0].endswith("FAILED: the loss is nan")
    assert rows(tmp_path / "out")[0]["state"] == "fail"
    (mvtec / "train/good/000.png").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"000\.png: cannot be decoded"):
        search(wanted(tiny, mvtec, trials=1), tmp_path / "other", lines.append)
    assert len(lines) == 1


def test_spaces_are_typed_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"

    def read(text: str) -> dict[str, Range]:
        file.write_text(text)
        return read_space(file, Config())

    assert read(
        "[adam.lr_generator]\nlow = 1e-5\nhigh = 1e-3\nlog = true\n[epochs]\nlow = 8\nhigh = 64\nstep = 8"
    ) == {
        "adam.lr_generator": Range(low=1e-5, high=1e-3, log=True),
        "epochs": Range(low=8, high=64, step=8),
    }
    for text, match in (
        ("", "expected at least one"),
        ("[algan.sigmma]\nlow = 1\nhigh = 2", r"algan\.sigmma: .*unknown configuration key"),
        ("[algan.sigma]\nlow = 0.0\nhigh = 2.0", r"algan\.sigma: .*above 0"),
        ("[algan.sigma]\nlow = 3.0\nhigh = 2.0", "expected `choices`, or `low` below `high`"),
        ("[algan.sigma]\nlow = 1.0\nhigh = 2.0\nchoices = [1.0]", "expected `choices`, or"),
        ("[algan.sigma]\nlo = 1.0", "unknown field"),
        ("[network.init]\nchoices = ['pytorch', 'xavier']", r"network\.init"),
        ("[algan.n_dis]\nlow = 1.5\nhigh = 2.5", r"algan\.n_dis"),
    ):
        with pytest.raises(ConfigError, match=match):
            read(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_space(tmp_path / "none.toml", Config())
