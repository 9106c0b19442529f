"""The same study on a Ray cluster of two nodes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from algan_trainer.study import ray_runner
from algan_trainer.study.conduct import How, conduct
from algan_trainer.study.execute import Task
from algan_trainer.study.outputs import finished
from algan_trainer.study.plan import Plan, StudyError, fingerprint, make_plan, plain
from algan_trainer.study.records import ATTEMPTS, CELLS, RESULT, read_result
from algan_trainer.study.settle import settle

SEEDS = 3
CHANGES: dict[str, Any] = {
    "network.size_px": 32,
    "network.width": 4,
    "network.latent_dim": 8,
    "batch_size": 4,
    "precision": "fp32",
    "epochs": 40,
    "validate_every": 2,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without processors for cells, and two nodes with one each; a death is noticed within seconds."""
    pytest.importorskip("ray", reason="needs the extra [ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (15 starves them where other things run)
    from ray.cluster_utils import Cluster

    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": quick},
    )
    yield made
    made.shutdown()


def attempts(folder: Path) -> list[dict[str, Any]]:
    path = folder / ATTEMPTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_a_node_in_the_middle(
    cluster: Any, nodes: list[Any], plan: Plan, cells: Path, found: list[str]
) -> None:
    """Waits until one of the nodes is training and has a checkpoint, then kills it."""
    ends = time.monotonic() + 240
    while time.monotonic() < ends:
        for cell in plan.cells:
            folder = cells / cell.key
            if (folder / "work/last.npz").exists() and not (folder / RESULT).exists():
                at = attempts(folder)[-1]
                # A machine that dies takes all its processes along; Ray's test cluster kills its own only.
                os.kill(at["pid"], signal.SIGSTOP)
                node = next(n for n in nodes if n.node_id == at["node"])
                cluster.remove_node(node, allow_graceful=False)
                os.kill(at["pid"], signal.SIGKILL)
                found.append(cell.key)
                return
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves sockets to the garbage collector
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_node_dies_and_nothing_is_lost(cluster: Any, mvtec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = settle("stability", mvtec, out, seeds=SEEDS, changes=CHANGES)
    plan = make_plan(asked)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    interrupted: list[str] = []
    watcher = threading.Thread(
        target=kill_a_node_in_the_middle, args=(cluster, nodes, plan, out / CELLS, interrupted)
    )
    watcher.start()
    lines: list[str] = []
    conduct(asked, out, How(ray=cluster.address), lines.append)
    watcher.join()

    results = finished(plan, out)
    assert set(results) == {cell.key for cell in plan.cells}
    assert all(result.status == "done" for result in results.values())
    told = [line.split("] ")[1].split(":")[0] for line in lines if line.startswith("[")]
    assert sorted(told) == sorted(results)  # each exactly once
    (key,) = interrupted
    first, second = attempts(out / CELLS / key)
    assert first["node"] != second["node"]
    assert second["from_epoch"] >= 2  # went on from the dead node's checkpoint
    assert results[key].attempts == 2
    assert results[key].resumed_from_epoch == second["from_epoch"]
    table = json.loads((out / "table.json").read_text())
    assert [place["n"] for place in table["places"]] == [SEEDS] * len(table["places"])


def test_a_cluster_that_is_not_there_is_named(mvtec: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    asked = settle("mtd", mvtec, tmp_path / "out", seeds=1, changes=CHANGES)
    with pytest.raises(Exception, match="expected local, auto, HOST:PORT") as caught:
        conduct(asked, tmp_path / "out", How(ray="http://here"), print)
    assert caught.type.__name__ == "ConfigError"


# ---- without Ray: what a node does, and what the driver makes of it ----------------------------------------


def task_of(mvtec: Path) -> Task:
    asked = settle("mtd", mvtec, mvtec.parent / "unused", seeds=1, changes=CHANGES | {"epochs": 1})
    (cell,) = make_plan(asked).cells
    return Task(
        key=cell.key,
        data=str(mvtec),
        config=plain(cell.config),
        fingerprint=fingerprint(cell.config, "x"),
        threads=1,
    )


def test_a_node_without_the_studys_folder_sends_its_files(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_runner.tempfile, "gettempdir", lambda: str(tmp_path / "node"))
    task, cells = task_of(mvtec), tmp_path / "cells"
    token = ray_runner._offer(cells)
    assert ray_runner._offer(cells) == token  # the same for as long as the folder stands
    reply = ray_runner.run_on_node(msgspec.json.encode(task), tmp_path / "elsewhere", token, "n")
    assert reply.result is not None
    assert reply.result.status == "done"
    assert not (cells / task.key).exists()
    assert not list((tmp_path / "node").glob("*/*"))  # nothing is left behind
    ray_runner.store_files(cells / task.key, reply.files)
    assert (cells / task.key / "bundle/manifest.json").is_file()
    assert (cells / task.key / "bundle/report/training_curve.csv").is_file()


def test_a_node_that_shares_the_folder_works_in_it(mvtec: Path, tmp_path: Path) -> None:
    task, cells = task_of(mvtec), tmp_path / "cells"
    encoded, token = msgspec.json.encode(task), ray_runner._offer(cells)
    reply = ray_runner.run_on_node(encoded, cells, token, "n")
    assert reply.files == {}
    assert read_result(cells / task.key) == reply.result
    again = ray_runner.run_on_node(encoded, cells, token, "m")  # a retry after a lost reply
    assert again.result == reply.result
    assert len(attempts(cells / task.key)) == 1


def test_files_from_a_node_stay_in_their_folder(tmp_path: Path) -> None:
    for name in ("../x", "/tmp/x", "a/../../x"):
        with pytest.raises(StudyError, match="leads out of"):
            ray_runner.store_files(tmp_path / "cell", {name: b""})
    assert not (tmp_path / "x").exists()
