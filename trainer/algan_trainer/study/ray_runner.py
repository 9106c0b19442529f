"""Runs cells on a Ray cluster: the same cells, the same files, the same results.

Where a node sees the study's folder (shared storage), it works there, and a cell whose node dies goes on from
its last checkpoint on another. Where it does not, the cell runs in a folder of the node's own, its files come
back with the result, and a cell whose node dies starts anew. Either way the driver counts each key once.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from algan_stream.cpus import available_cpus
from algan_stream.errors import ConfigError, PluginError
from algan_trainer.study.execute import Task, execute
from algan_trainer.study.plan import StudyError
from algan_trainer.study.records import ATTEMPTS, BUNDLE, LOG, RESULT, Result, write_json

_TOKEN = ".token"
#: Starts of a cell beyond the first, each after the loss of a node or worker.
RETRIES = 5
#: How long a cell waits for its earlier attempt to be quite dead: a node that Ray gave up may still work.
_WAIT_S = 300.0
_GRACE_S = 60.0


class Reply(msgspec.Struct, frozen=True):
    """What comes back from a node: a result, or None when it was interrupted; and files, if not shared."""

    result: Result | None
    files: dict[str, bytes] = {}


def run_ray(
    tasks: list[Task], cells: Path, address: str, threads: int, retries: int = RETRIES
) -> Iterator[Result]:
    """Hands all cells to Ray, `threads` processors each; yields results as they come.

    Args:
        tasks: The cells to run.
        cells: The study's folder of cells, on the driver.
        address: Of a running cluster (`auto`, `host:6379`, `ray://host:10001`), or `local`: start Ray here.
        threads: Processors that each cell is given.
        retries: Starts of a cell beyond the first, each after a loss of its node.

    Raises:
        PluginError: Ray is not installed.
        StudyError: The cluster cannot be reached.
    """
    ray = _import_ray()
    if "://" in address and not address.startswith("ray://"):
        raise ConfigError(f"--ray: expected local, auto, HOST:PORT or ray://HOST:PORT, got {address}")
    cells = cells.absolute()
    token = _offer(cells)
    _connect(ray, address)
    pending: dict[Any, Task] = {}
    try:
        remote = ray.remote(num_cpus=threads, max_retries=retries)(_run_cell)
        for task in tasks:
            pending[remote.remote(msgspec.json.encode(task), str(cells), token)] = task
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=1.0)
            for reference in ready:
                task = pending.pop(reference)
                yield _received(ray, reference, task, cells)
    finally:
        _cancel(ray, list(pending))
        ray.shutdown()


def _run_cell(encoded: bytes, cells: str, token: str) -> bytes:
    """On the node: a `Reply`, encoded."""
    return msgspec.msgpack.encode(run_on_node(encoded, Path(cells), token, _node()))


def run_on_node(encoded: bytes, cells: Path, token: str, node: str) -> Reply:
    """Runs a cell where this node can: in the study's own folder if it sees it, else in one of its own."""
    from algan_trainer.run import TrainingInterruptedError

    task = msgspec.json.decode(encoded, type=Task)
    shared = _sees(cells, token)
    own = Path(tempfile.gettempdir()) / f"algan-study-{token[:16]}"
    folder = (cells if shared else own) / task.key
    try:
        result = execute(task, folder, node=node, wait_s=_WAIT_S)
    except (TrainingInterruptedError, KeyboardInterrupt):
        return Reply(None)
    if shared:
        return Reply(result)
    wanted = [folder / name for name in (ATTEMPTS, LOG)] + sorted((folder / BUNDLE).rglob("*"))
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in wanted if p.is_file()}
    shutil.rmtree(folder, ignore_errors=True)
    return Reply(result, files)


def _received(ray: Any, reference: Any, task: Task, cells: Path) -> Result:
    """A cell's result, its files in place; the loss of its last node is a failure."""
    folder = cells / task.key
    try:
        reply = msgspec.msgpack.decode(ray.get(reference), type=Reply)
    except ray.exceptions.RayError as error:
        text = str(error).strip().splitlines() or [""]
        reply = Reply(_failed(task, f"lost on the cluster: {type(error).__name__}: {text[-1]}"))
        write_json(folder / RESULT, reply.result)
    if reply.result is None:
        raise KeyboardInterrupt  # cancelled from elsewhere
    if reply.files:
        store_files(folder, reply.files)
        write_json(folder / RESULT, reply.result)
    return reply.result


def store_files(folder: Path, files: dict[str, bytes]) -> None:
    """Writes what a node sent.

    Raises:
        StudyError: A name leads out of the folder, or a file cannot be written.
    """
    for name, content in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StudyError(f"a node sent a file named {name!r}, which leads out of {folder}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise StudyError(f"{path}: cannot be written: {error.strerror}") from error


def _failed(task: Task, error: str) -> Result:
    return Result(
        key=task.key, fingerprint=task.fingerprint, status="failed", config=task.config, error=error
    )


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    try:
        import ray
    except ImportError as error:
        raise PluginError(
            f"--ray needs the Python package {error.name}: pip install 'algan-stream[ray]'"
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    try:
        if address == "local":
            ray.init(num_cpus=available_cpus(), include_dashboard=False, log_to_driver=False)
        else:
            ray.init(address=address, log_to_driver=False)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise StudyError(
            f"--ray {address}: cannot be reached: {error}; start a cluster with `ray start --head`, or use "
            "--ray local"
        ) from error


def _cancel(ray: Any, pending: list[Any]) -> None:
    """Asks what still runs to save and stop, and waits for it."""
    if not pending:
        return
    for reference in pending:
        ray.cancel(reference, force=False)
    ray.wait(pending, num_returns=len(pending), timeout=_GRACE_S)


def _offer(cells: Path) -> str:
    """The random token in the study's folder: a node that reads the same one there shares the folder."""
    path = cells / _TOKEN
    try:
        cells.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.write_text(secrets.token_hex(16), "utf-8")
        token = path.read_text("utf-8")
    except OSError as error:
        raise StudyError(f"{cells}: cannot be written: {error.strerror}") from error
    return token


def _sees(cells: Path, token: str) -> bool:
    try:
        return (cells / _TOKEN).read_text("utf-8") == token
    except OSError:
        return False


def _node() -> str:
    return str(_import_ray().get_runtime_context().get_node_id())
