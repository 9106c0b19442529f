from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from algan_stream.cli import app
from algan_stream.errors import ConfigError, InputError
from algan_trainer import algan
from algan_trainer.config import Config, override, read_config
from algan_trainer.latents import loss_weights
from algan_trainer.study import execute, local, paper
from algan_trainer.study.conduct import How, StudyInterruptedError, conduct
from algan_trainer.study.curves import curve_svg, points
from algan_trainer.study.designs import NAMES, designs
from algan_trainer.study.outputs import retabulate, states, write_tables
from algan_trainer.study.plan import Plan, Settings, StudyError, apply, find_categories, make_plan
from algan_trainer.study.records import CELLS, RESULT, Result, locked, read_result
from algan_trainer.study.settle import settle
from algan_trainer.study.table import markdown
from algan_trainer.study.tabulate import mean_over, orders, tabulate

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "network.size_px": 32,
    "network.width": 4,
    "network.latent_dim": 8,
    "batch_size": 4,
    "precision": "fp32",
    "epochs": 2,
    "validate_every": 1,
}


def quiet(_text: str) -> None:
    pass


def settings(study: str, data: Path, out: Path, seeds: int = 2, **changes: Any) -> Settings:
    return settle(study, data, out, seeds=seeds, changes=TINY | changes)


def planned(study: str, seeds: int = 2, categories: tuple[str, ...] = (), data: str = "/data/x") -> Plan:
    config = msgspec.to_builtins(override(Config(), {**paper.CONFIG, "precision": "fp32"}))
    return make_plan(Settings(study=study, data=data, categories=categories, seeds=seeds, config=config))


def result(key: str, value: float, **changes: Any) -> Result:
    fields = {"status": "done", "metrics": {"test_auroc": value, "best_epoch": 8.0}, "fingerprint": "f"}
    return Result(key=key, **(fields | changes))


# ---- the paper ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / "trainer/configs").is_dir(), reason="needs the whole repository")
def test_studies_start_from_the_papers_configuration() -> None:
    assert override(Config(), paper.CONFIG) == read_config(ROOT / "trainer/configs/paper.toml")


def test_the_papers_tables_agree_with_each_other() -> None:
    for method in paper.TABLE_1_METHODS:
        mean = np.mean([row[method].mean for row in paper.TABLE_1.values()])
        assert mean == pytest.approx(paper.TABLE_1_MEAN[method].mean, abs=6e-4), method
    of_algan = [row["ALGAN-image"] for row in paper.TABLE_1.values()]
    assert np.mean([r.std or 0 for r in of_algan]) == pytest.approx(paper.TABLE_7[True, True].std, abs=6e-4)
    bottle = paper.TABLE_1["bottle"]["ALGAN-image"]
    tables = (paper.TABLE_8[4.0], paper.TABLE_9[0.75][0.75], paper.TABLE_10[2], paper.TABLE_11[2])
    assert all(value == bottle for value in tables)
    assert paper.TABLE_1.keys() == paper.AUGMENTATION.keys()
    assert len(paper.TABLE_1) == 15


# ---- plans -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_study_has_a_plan_of_unique_cells(name: str) -> None:
    plan = planned(name, seeds=3, categories=("bottle", "screw") if name == "mvtec" else ())
    keys = [cell.key for cell in plan.cells]
    assert len(set(keys)) == len(keys) == 3 * len(plan.design.groups)
    groups = {group.id for group in plan.design.groups}
    assert {entry.group for entry in plan.design.entries} <= groups
    assert [cell.seed for cell in plan.cells] == sorted(cell.seed for cell in plan.cells)
    assert all(cell.config.seed == cell.seed for cell in plan.cells)
    assert not any(set(key) & set("/\\ ") for key in keys)


def test_ablation_leaves_out_one_kind_after_the_other() -> None:
    of = {
        cell.group: (cell.config.algan.alpha, cell.config.algan.xi) for cell in planned("ablation", 1).cells
    }
    assert of == {"neither": (1, 1), "buffered": (1, 0.75), "anomalous": (0.75, 1), "both": (0.75, 0.75)}


@pytest.mark.parametrize("alpha_by", ["sampling", "weight"])
def test_what_ablation_leaves_out_costs_nothing(
    tiny: Config, images: Callable[[int], torch.Tensor], alpha_by: str
) -> None:
    changes = {"algan.alpha": 1.0, "algan.xi": 1.0, "epochs": 2, "algan.alpha_by": alpha_by}
    config = override(tiny, {**paper.CONFIG, **TINY, **changes})
    state = algan.new_state(config, images(8))
    seen = []
    state.discriminator.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))
    for _ in algan.train(state, images(8)):
        pass
    assert state.epoch == 2
    assert set(seen) == {4, 8}  # G's batch; real and fresh ones, and no buffered ones, in any epoch
    assert loss_weights(4, config.algan).tolist() == [1.0] * 4  # all are normal, none has weight 0


def test_sections_4_2_augmentation_is_each_categorys_own_unless_set() -> None:
    of = {c.category: c.config.data for c in planned("mvtec", 1, ("bottle", "pill", "toothbrush", "x")).cells}
    assert (of["bottle"].vertical_flip, of["bottle"].rotation) == (True, "any")
    assert (of["pill"].horizontal_flip, of["pill"].rotation) == (False, "none")
    assert of["toothbrush"].grey
    assert of["x"] == override(Config(), paper.CONFIG).data
    directly = planned("sigma", 1, data="/data/mvtec/bottle")
    assert directly.cells[0].config.data.rotation == "any"
    config = msgspec.to_builtins(override(Config(), {**paper.CONFIG, "precision": "fp32"}))
    asked = Settings(
        study="mvtec",
        data="d",
        categories=("bottle",),
        seeds=1,
        config=config,
        fixed=("data.rotation",),
    )
    assert make_plan(asked).cells[0].config.data.rotation == "none"


def test_categories(mvtec: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in ("bottle", "screw"):
        (whole / name).symlink_to(mvtec)
    assert find_categories(whole) == ["bottle", "screw"]
    assert find_categories(mvtec) == []
    out = tmp_path / "out"
    assert settings("mvtec", whole, out).categories == ("bottle", "screw")
    assert settings("sigma", whole, out).categories == ("bottle",)
    assert settings("ablation", whole, out).categories == ("bottle", "screw")
    assert settings("sigma", mvtec, out).categories == ()
    with pytest.raises(InputError, match="one subfolder for each category"):
        settings("mvtec", mvtec, out)
    with pytest.raises(InputError, match="transistor, found bottle, screw; choose one with --category"):
        settings("stability", whole, out)
    with pytest.raises(InputError, match="expected the category pill"):
        settle("mvtec", whole, out, seeds=1, categories=["pill"])


def test_unknown_keys_and_values_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"algan\.sigmma: unknown configuration key; sigmma is none of sigma"
    ):
        apply(Config(), {"algan.sigmma": 1.0})
    with pytest.raises(ConfigError, match=r"algan\.sigma"):
        apply(Config(), {"algan.sigma": "four"})
    with pytest.raises(ConfigError, match="epochs: expected 1 or more"):
        apply(Config(), {"epochs": 0})


# ---- tables ------------------------------------------------------------------------------------------------


def test_means_over_categories_are_means_of_means_and_of_deviations() -> None:
    plan = planned("ablation", 2, ("bottle", "screw"))
    values = {"bottle": (0.5, 0.7), "screw": (0.9, 0.9)}
    results = {
        cell.key: result(cell.key, values[cell.category][cell.seed])
        for cell in plan.cells
        if cell.group == "both"
    }
    both = {place.entry.group: place for place in tabulate(plan, results)}["both"]
    assert both.mean == pytest.approx(0.75)
    assert both.std == pytest.approx(np.std([0.5, 0.7], ddof=1) / 2)
    assert both.difference == pytest.approx(0.75 - 0.878)
    assert (both.done, both.planned, both.complete) == (4, 4, True)
    neither = tabulate(plan, results)[0]
    assert (neither.mean, neither.std, neither.done) == (None, None, 0)


def test_failures_are_no_results() -> None:
    plan = planned("mtd", 2)
    results = {
        "all.seed-0": result("all.seed-0", 0.9),
        "all.seed-1": result("all.seed-1", 0.1, status="failed", error="diverged\nmore"),
    }
    (place,) = tabulate(plan, results)
    assert (place.mean, place.std, place.done, place.planned) == (0.9, None, 1, 2)
    text = markdown(plan, [place], results, ["a fact"])
    assert "**PARTIAL: 1 of 2 trainings done.**" in text
    assert "all.seed-1: diverged" in text
    assert "| AUROC | 0.900 | 1 of 2 | 0.956 | -0.056 | 0.683 |" in text
    assert "- a fact" in text


def ablation_with(*means: float) -> tuple[Plan, dict[str, Result]]:
    plan = planned("ablation", 2)
    of = dict(zip([group.id for group in plan.design.groups], means, strict=True))
    return plan, {
        c.key: result(c.key, of[c.group] + (0.01 if c.seed else -0.01) * (1 + len(c.group) / 10))
        for c in plan.cells
    }


def test_the_order_check_says_which_pairs_are_reproduced() -> None:
    plan, results = ablation_with(0.6, 0.8, 0.7, 0.9)
    found = {(o.better, o.worse): o for o in orders(tabulate(plan, results))}
    assert len(found) == 6
    wrong = found["anomalous latent only", "buffered data only"]
    assert not wrong.reproduced
    assert wrong.ours == pytest.approx(-0.1)
    assert wrong.paper == pytest.approx(0.779 - 0.761)
    assert wrong.noise is not None
    assert wrong.noise < 0.01  # of the differences, seed by seed, not of the two spreads
    assert sum(o.reproduced for o in found.values()) == 5
    text = markdown(plan, tabulate(plan, results), results, [])
    assert "Order: 5 of 6 pairs stand as in the paper, 1 the other way round, 0 undecided." in text
    assert (
        "NOT reproduced: anomalous latent only above buffered data only: paper by 0.018, here by -0.100"
        in text
    )
    assert "All 8 of 8 trainings done." in text


def test_the_order_check_needs_results_and_the_papers_value() -> None:
    plan = planned("nz", 1)
    results = {cell.key: result(cell.key, 0.8) for cell in plan.cells}
    assert orders(tabulate(plan, results)) == []  # the paper's values for 1, 3 and 4 are not known
    plan = planned("sigma", 1)
    assert orders(tabulate(plan, {})) == []


def test_grids_have_the_papers_rows_and_columns() -> None:
    plan = planned("alpha-xi", 1)
    results = {cell.key: result(cell.key, 0.5) for cell in plan.cells}
    text = markdown(plan, tabulate(plan, results), results, [])
    assert "| α \\ ξ |  | 0.25 | 0.5 | 0.75 | 0.85 |" in text
    assert "|  | paper | 0.826 ± 0.138 | 0.860 ± 0.048 | 0.948 ± 0.024 | 0.808 ± 0.122 |" in text
    assert text.count("| ours | 0.500 | 0.500 | 0.500 | 0.500 |") == 4
    assert "|  | difference | -0.326 | -0.360 | -0.448 | -0.308 |" in text
    sigma = markdown(planned("sigma"), tabulate(planned("sigma"), {}), {}, [])
    assert "| σ |  | 2 | 3 | 4 | 5 | 6 | 8 |" in sigma
    assert "PARTIAL: 0 of 12" in sigma


def test_mvtec_adds_means_and_compares_them_only_where_all_categories_are_there() -> None:
    plan = planned("mvtec", 1, ("bottle", "carpet"))
    results = {c.key: result(c.key, 0.8 if c.category == "carpet" else 0.6) for c in plan.cells}
    places = tabulate(plan, results)
    assert mean_over(places) == (pytest.approx(0.7), None)
    text = markdown(plan, places, results, [])
    assert "| **mean** | 0.700 | 2 | – | – | – | – | – |" in text
    assert "| **textures** | 0.800 |" in text
    assert "| carpet | 0.800 | 1 | 0.846 ± 0.041 | -0.046 | 0.803 ± 0.070 |" in text
    every = planned("mvtec", 1, tuple(paper.TABLE_1))
    results = {c.key: result(c.key, 0.878) for c in every.cells}
    text = markdown(every, tabulate(every, results), results, [])
    assert "| **mean** | 0.878 | 15 | 0.878 | +0.000 | 0.765 | 0.793 | 0.752 |" in text


def test_curves() -> None:
    made = [result(str(i), 0.5, curve=((8, 0.5 + i / 10), (16, 0.8))) for i in range(2)]
    found = points([*made, result("x", 0.5, status="failed", curve=((8, 0.0),))])
    assert [(p.epoch, p.n) for p in found] == [(8, 2), (16, 2)]
    assert found[0].mean == pytest.approx(0.55)
    assert found[0].std == pytest.approx(np.std([0.5, 0.6], ddof=1))
    drawn = curve_svg(found, "t")
    assert drawn.count("<polyline") == 1
    assert "nan" not in drawn


# ---- runs --------------------------------------------------------------------------------------------------


def test_a_study_runs_once_and_grows(mvtec: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "out", list[str]()
    conduct(settings("stability", mvtec, out, seeds=1), out, How(threads=1), lines.append)
    first = read_result(out / CELLS / "trained.seed-0")
    assert first is not None
    assert first.status == "done"
    assert first.attempts == 1
    assert len(first.curve) == 2
    assert first.counts["train"] == {"good": 12, "anomalous": 0}
    assert not (out / CELLS / "trained.seed-0/work").exists()
    assert lines[0].endswith("1 trainings, 0 done before, 1 to do")
    written = (out / CELLS / "trained.seed-0" / RESULT).stat().st_mtime_ns
    lines.clear()
    conduct(settings("stability", mvtec, out, seeds=2), out, How(threads=1), lines.append)
    assert lines[0].endswith("2 trainings, 1 done before, 1 to do")
    assert (out / CELLS / "trained.seed-0" / RESULT).stat().st_mtime_ns == written
    rows = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert [(row["key"], row["status"]) for row in rows] == [
        ("trained.seed-0", "done"),
        ("trained.seed-1", "done"),
    ]
    table = json.loads((out / "table.json").read_text())
    values = [entry["value"] for entry in table["places"][0]["values"]]
    assert table["places"][0]["mean"] == pytest.approx(np.mean(values))
    assert table["places"][0]["std"] == pytest.approx(np.std(values, ddof=1))
    assert len((out / "curve.csv").read_text().splitlines()) == 3
    assert (out / "curve.svg").read_text().startswith("<svg")
    assert "network.size_px was 256, now 32" in (out / "table.md").read_text()
    assert retabulate(out) == (out / "table.md").read_text()
    # One with fewer seeds is the same study: what is there stays in the table.
    assert settings("stability", mvtec, out, seeds=1).seeds == 2
    with pytest.raises(StudyError, match=r"other settings: config\.epochs was 2, now 3; name another --out"):
        settings("stability", mvtec, out, epochs=3)
    with pytest.raises(StudyError, match="study was stability, now mtd"):
        settings("mtd", mvtec, out)
    asked = settings("stability", mvtec, out)
    (mvtec / "test/hole/000.png").unlink()
    with pytest.raises(StudyError, match=r"changed since trained\.seed-0 was run"):
        conduct(asked, out, How(threads=1), quiet)


def test_robustness_measures_every_kind(mvtec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    conduct(settings("robustness", mvtec, out, seeds=1), out, How(threads=1), quiet)
    of = read_result(out / CELLS / "trained.seed-0")
    assert of is not None
    entries = designs([])["robustness"].entries
    assert {entry.metric for entry in entries} <= of.metrics.keys()
    shares = [of.metrics[entry.metric] for entry in entries]
    assert all(share is not None and 0 <= share <= 1 for share in shares)
    assert of.metrics["rejects_asked"] == pytest.approx(
        1 / (4 + 1)
    )  # four calibration images support no less
    assert "| fakes of σ = 5 |" in (out / "table.md").read_text()


def test_a_failure_is_recorded_and_stops_nothing(
    mvtec: Path, tmp_path: Path, write_images: Callable[..., None]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    whole.mkdir()
    (whole / "fine").symlink_to(mvtec)
    write_images(whole / "broken/train/good", 6, seed=1)
    write_images(whole / "broken/test/good", 4, seed=2)
    with pytest.raises(StudyError, match=r"1 of 2 trainings failed: broken.seed-0; see .*table.md"):
        conduct(settings("mvtec", whole, out, seeds=1), out, How(threads=1), quiet)
    failed, fine = (read_result(out / CELLS / f"{name}.seed-0") for name in ("broken", "fine"))
    assert failed is not None
    assert fine is not None
    assert (failed.status, fine.status) == ("failed", "done")
    assert "good and anomalous test images" in failed.error
    assert "broken.seed-0: " in (out / "table.md").read_text()
    # Mended, the same command tries it again, and only it. A new picture is new data, but for this cell only.
    write_images(whole / "broken/test/hole", 4, seed=3, defect=True)
    lines: list[str] = []
    conduct(settings("mvtec", whole, out, seeds=1), out, How(threads=1), lines.append)
    assert "1 done before, 1 to do" in lines[0]
    mended = read_result(out / CELLS / "broken.seed-0")
    assert mended is not None
    assert (mended.status, mended.attempts) == ("done", 2)


LONG = [
    "--size=32",
    "--width=4",
    "--epochs=4000",
    "--validate-every=20",
    "--batch-size=4",
    "--precision=fp32",
]


def start_study(mvtec: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "algan_stream.cli_entry", "study", "stability", *options]
    command[1:3] = ["-c", "from algan_stream.cli import main; main()"]
    environment = {**os.environ, "GOMP_SPINCOUNT": "0"}
    return subprocess.Popen(
        [*command, f"--data={mvtec}", f"--out={out}", "--threads=1", *LONG], env=environment
    )


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "ended before its first checkpoint"
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize(("sent", "jobs", "code"), [(signal.SIGKILL, 1, -9), (signal.SIGINT, 2, 130)])
def test_stopped_in_the_middle_it_goes_on_from_the_checkpoint(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int, jobs: int, code: int
) -> None:
    out = tmp_path / "out"
    process = start_study(mvtec, out, "--seeds=1", f"--jobs={jobs}")
    folder = out / CELLS / "trained.seed-0"
    wait_for(folder / "work/last.npz", process)
    process.send_signal(sent)
    assert process.wait(60) == code
    assert read_result(folder) is None
    listed = list(states(settle_long(mvtec, out), out))
    assert listed == ["trained.seed-0: begun"]
    with locked(folder, "a worker left behind", wait_s=30):  # none is
        pass
    # The same again begins where that ended; how it ends is the next test's matter.

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "run", interrupt)
    with pytest.raises(StudyInterruptedError):
        conduct(settle_long(mvtec, out), out, How(threads=1), quiet)
    second = json.loads((folder / "attempts.jsonl").read_text().splitlines()[1])
    assert second["from_epoch"] >= 20


def settle_long(mvtec: Path, out: Path) -> Settings:
    changes = {**TINY, "epochs": 4000, "validate_every": 20}
    changes.pop("network.latent_dim")
    return settle("stability", mvtec, out, seeds=1, changes=changes)


def test_a_resumed_cell_ends_as_one_that_was_never_stopped(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    changes = {"epochs": 6}
    conduct(settings("mtd", mvtec, straight, 1, **changes), straight, How(threads=1), quiet)
    from algan_trainer import run as run_module

    save = run_module._save

    def stop_after_saving(state: Any, *rest: Any) -> None:
        save(state, *rest)
        if state.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_save", stop_after_saving)
        with pytest.raises(StudyInterruptedError, match="0 of 1 trainings are done and kept"):
            conduct(settings("mtd", mvtec, halves, 1, **changes), halves, How(threads=1), quiet)
    conduct(settings("mtd", mvtec, halves, 1, **changes), halves, How(threads=1), quiet)
    one, two = (read_result(out / CELLS / "all.seed-0") for out in (straight, halves))
    assert one is not None
    assert two is not None
    assert (two.attempts, two.resumed_from_epoch) == (2, 3)
    assert one.metrics == two.metrics
    assert one.curve == two.curve


def test_processes_give_what_one_process_gives(mvtec: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    conduct(settings("mtd", mvtec, here, 2), here, How(threads=1), quiet)
    conduct(settings("mtd", mvtec, there, 2), there, How(jobs=2, threads=1), quiet)
    for seed in range(2):
        one, two = (read_result(out / CELLS / f"all.seed-{seed}") for out in (here, there))
        assert one is not None
        assert two is not None
        assert one.metrics == two.metrics


def test_a_worker_that_dies_is_a_failed_cell(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shot = tmp_path / "shot"
    shot.write_text("#!/bin/sh\nkill -9 $$\n")
    shot.chmod(0o755)
    monkeypatch.setattr(local.sys, "executable", str(shot))
    out = tmp_path / "out"
    with pytest.raises(StudyError, match="2 of 2 trainings failed"):
        conduct(settings("mtd", mvtec, out, 2), out, How(jobs=2, threads=1), quiet)
    of = read_result(out / CELLS / "all.seed-1")
    assert of is not None
    assert "the worker ended with signal 9" in of.error


def test_two_runs_of_one_study_are_refused(mvtec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = settings("mtd", mvtec, out)
    with locked(out, "x"), pytest.raises(StudyError, match="another study is at work there"):
        conduct(asked, out, How(threads=1), quiet)


def test_a_damaged_result_is_named(mvtec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = settings("mtd", mvtec, out)
    (out / CELLS / "all.seed-0").mkdir(parents=True)
    (out / CELLS / "all.seed-0" / RESULT).write_text("{")
    with pytest.raises(StudyError, match=r"result\.json: is damaged or from another version"):
        write_tables(asked, out)


# ---- command -----------------------------------------------------------------------------------------------


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["study", *map(str, arguments)], catch_exceptions=False)


def test_list_and_dry_run_train_nothing(mvtec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = [
        "--data",
        mvtec,
        "--out",
        out,
        "--seeds",
        1,
        "--size",
        32,
        "--epochs",
        2,
        "--set",
        "batch_size=4",
    ]
    listed = invoke("ablation", *common, "--list")
    assert listed.stdout.splitlines() == [
        f"{name}.seed-0: to do" for name in ("neither", "buffered", "anomalous", "both")
    ]
    checked = invoke("ablation", *common, "--dry-run")
    assert "mvtec: train 12" in checked.stdout
    assert "4 trainings of 6 batches" in checked.stdout
    assert "would run 4 trainings" in checked.stdout
    assert not out.exists()


def test_bad_options_are_refused(mvtec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="--set: expected KEY=VALUE, got epochs"):
        invoke("mtd", "--data", mvtec, "--out", out, "--set", "epochs")
    with pytest.raises(ConfigError, match="--seeds: expected 1 or more"):
        invoke("mtd", "--data", mvtec, "--out", out, "--seeds", 0)
    with pytest.raises(InputError, match="no such folder"):
        invoke("mtd", "--data", mvtec / "nowhere", "--out", out)
    with pytest.raises(StudyError, match="lies in the data's own folder"):
        invoke("mtd", "--data", mvtec, "--out", mvtec / "out")
    with pytest.raises(StudyError, match=r"expected a study's folder with study\.json"):
        invoke("table", mvtec)


def test_the_commands_load_no_heavy_library() -> None:
    code = "import algan_trainer.study.commands, sys; print(' '.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert "algan_trainer.study.commands" in loaded
    assert not loaded & {"torch", "ray", "optuna", "openvino", "cv2"}
