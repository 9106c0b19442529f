"""Who computes what: one process, or several that train one model together (DDP by Lightning Fabric).

All processes hold the same state and draw the same numbers: order, latents, augmentation, pseudo-anomalies,
all for the whole batch. Each then takes its rows of the batch through D, and gradients are averaged. G runs
forward on the whole batch everywhere, so that batch norm sees what it sees in one process. So N processes
give what one gives, up to the order of sums. Only the first validates, saves, reports and exports.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from algan_stream.errors import AlganError, ConfigError, PluginError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Network = Callable[[Tensor], Tensor]
#: How long a process waits for the others before it gives up; rank 0 validates and saves meanwhile.
TIMEOUT = timedelta(minutes=30)
#: How long the others may take to end once rank 0 is done, seconds.
_END_S = 60.0
#: How long rank 0 may take to notice by itself that another process has failed, seconds.
_GRACE_S = 15.0
#: Names the process that started this one.
_STARTED_BY = "ALGAN_STARTED_BY"
#: What is shown of a failed process's last words, characters.
_TAIL = 2000


class TeamError(AlganError):
    """One of several training processes failed, and training stopped."""

    exit_code = 11


class Team:
    """One process that does all the work, on one device.

    Attributes:
        rank: Number of this process, 0 for the first.
        size: Number of processes.
        device: Where this process computes.
    """

    rank = 0
    size = 1

    def __init__(self, device: torch.device | None = None, *, compiled: bool = False) -> None:
        self.device = device or torch.device("cpu")
        self._compiled: dict[nn.Module, Network] | None = {} if compiled else None

    def learner(self, network: nn.Module) -> Network:
        """The network as its own update runs it."""
        return self.judge(network)

    def judge(self, network: nn.Module) -> Network:
        """The network where its weights are not to be updated."""
        if self._compiled is None:
            return network
        if network not in self._compiled:
            from algan_trainer.compiling import compiled

            self._compiled[network] = compiled(network, self.device)
        return self._compiled[network]

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of a batch."""
        return rows

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over all processes."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process; the same answer in all."""
        return flag

    def first(self) -> AbstractContextManager[None]:
        """A block that rank 0 goes through before the others enter it."""
        return nullcontext()

    def check(self, batch_size: int) -> None:
        """Raises ConfigError where a batch cannot be shared out evenly."""
        if batch_size % self.size:
            raise ConfigError(
                f"batch_size: {batch_size} images cannot be shared evenly by {self.size} processes; choose a "
                f"multiple of {self.size}, such as {-(-batch_size // self.size) * self.size}"
            )


class FabricTeam(Team):
    """One of several processes; gradients are averaged over all of them."""

    def __init__(self, fabric: Fabric) -> None:
        super().__init__(fabric.device)
        self.rank, self.size = fabric.global_rank, fabric.world_size
        self._fabric = fabric

    def learner(self, network: nn.Module) -> Network:
        """Wraps the network in DDP; its parameters stay the same objects."""
        module: nn.Module = self._fabric.setup_module(network, move_to_device=False)
        return module

    def share(self, rows: Tensor) -> Tensor:
        """Every `size`-th row: normal and anomalous fakes alike are shared out."""
        return rows[self.rank :: self.size]

    def mean(self, values: Tensor) -> Tensor:
        """All-reduces a copy."""
        reduced = self._fabric.all_reduce(values.detach().clone(), reduce_op="mean")
        if not isinstance(reduced, Tensor):
            raise TypeError(f"expected a tensor, got {type(reduced).__name__}")
        return reduced

    def any(self, flag: bool) -> bool:
        """All-reduces the flag."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0.0)

    def first(self) -> AbstractContextManager[None]:
        """Without a time limit: rank 0 may extract features or export for long."""
        block: AbstractContextManager[None] = self._fabric.rank_zero_first()
        return block


@contextmanager
def open_team(device: torch.device, size: int, *, compiled: bool = False) -> Iterator[Team]:
    """Starts the processes of a training, and ends them.

    The first process runs the same command once more for each of the others, unless all were started from
    outside (`torchrun`). An error here ends them; an error there ends this one.

    Args:
        device: What kind of device to train on; with several processes each takes its own GPU.
        size: Number of processes.
        compiled: Compile the networks.

    Raises:
        TeamError: Another process failed.
        PluginError: The package `lightning-fabric` is not installed, or there are fewer GPUs.
    """
    if size == 1:
        yield Team(device, compiled=compiled)
        return
    if compiled:
        raise ConfigError("--compile: works with one device only; leave it out, or train with --devices 1")
    if device.type == "cuda" and torch.cuda.device_count() < size:
        raise PluginError(
            f"--devices {size}: PyTorch finds {torch.cuda.device_count()} GPUs; name at most as many"
        )
    _require_fabric()
    with _others(size) as others:
        try:
            yield FabricTeam(_fabric(device.type, size))
        except AlganError:
            raise
        except RuntimeError as error:  # what PyTorch raises where a peer has gone
            failed = next((other for other in others if other.failed()), None)
            if failed is None:
                raise
            raise TeamError(failed.last_words()) from error


def _fabric(accelerator: str, size: int) -> Fabric:
    """Joins the processes; returns once all are there."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
    from torch.nn.parallel import DistributedDataParallel

    # Buffers (batch norm's, singular vectors) are the same everywhere by construction. Later versions of
    # PyTorch have another name for that wish.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    unsynced: dict[str, Any] = {name: False}
    strategy = DDPStrategy(timeout=TIMEOUT, **unsynced)
    fabric = Fabric(accelerator=accelerator, devices=size, strategy=strategy)
    fabric.launch()
    return fabric


def fabric_is_installed() -> bool:
    """Whether several processes can be had."""
    try:
        import lightning_fabric  # noqa: F401
    except ImportError:
        return False
    return True


def _require_fabric() -> None:
    if not fabric_is_installed():  # said before other processes are started
        raise PluginError(
            "--devices needs the Python package lightning-fabric: pip install 'algan-stream[distributed]'"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


@dataclass(frozen=True)
class _Other:
    """A process that rank 0 started."""

    rank: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def failed(self) -> bool:
        """Whether it has ended with an error, or does so within seconds."""
        try:
            return self.process.wait(5.0) != 0
        except subprocess.TimeoutExpired:
            return False

    def last_words(self) -> str:
        """Why it ended."""
        self.log.seek(0)
        text = self.log.read().decode(errors="replace")[-_TAIL:].strip()
        return f"training process {self.rank} ended with exit code {self.process.returncode}:\n{text}"

    def end(self, within_s: float) -> None:
        """Waits for it, then terminates it, then kills it."""
        for stop in (self.process.terminate, self.process.kill):
            try:
                self.process.wait(within_s)
                return
            except subprocess.TimeoutExpired:
                stop()
                within_s = 10.0
        self.process.wait()


@contextmanager
def _others(size: int) -> Iterator[list[_Other]]:
    """Runs this very command in `size` − 1 further processes; none where they come from outside."""
    if "LOCAL_RANK" in os.environ:
        if _STARTED_BY in os.environ:
            threading.Thread(target=_follow, args=(int(os.environ[_STARTED_BY]),), daemon=True).start()
        yield []
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(size)}
    before = {name: os.environ.get(name) for name in (*shared, "LOCAL_RANK")}
    os.environ.update(shared | {"LOCAL_RANK": "0"})
    others: list[_Other] = []
    over = threading.Event()
    patience = 0.0
    try:
        for rank in range(1, size):
            log = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
            process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env=os.environ | {"LOCAL_RANK": str(rank), _STARTED_BY: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # they have nothing to say that rank 0 does not
                stderr=log,
            )
            others.append(_Other(rank, process, log))
        threading.Thread(target=_watch, args=(others, over), daemon=True).start()
        yield others
        patience = _END_S
    finally:
        over.set()
        for other in others:
            other.end(patience)
            other.log.close()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _watch(others: list[_Other], over: threading.Event) -> None:
    """Ends rank 0 where another process has failed and PyTorch goes on waiting for it, as NCCL does."""
    while not over.wait(1.0):
        failed = next((other for other in others if other.process.poll()), None)
        if failed is not None and not over.wait(_GRACE_S):
            sys.stderr.write(f"{failed.last_words()}\n")
            sys.stderr.flush()
            # The main thread hangs in a collective and cannot be interrupted; the last checkpoint is on disk.
            os._exit(TeamError.exit_code)


def _follow(parent: int) -> None:
    """Ends this process where the one that started it was killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(TeamError.exit_code)
