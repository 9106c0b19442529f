"""A log for TensorBoard: losses, AUROC and sample images as training goes on. Off unless asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from algan_stream.errors import PluginError
from algan_stream.types import InputSpec, Spec
from algan_trainer.algan import State
from algan_trainer.report.fakes import draw_fakes
from algan_trainer.report.pictures import Images, sheet, to_rgb

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: Tags of the numbers, by their column in the training curve.
_TAGS = {
    "loss_d": "loss/discriminator",
    "loss_g": "loss/generator",
    "auroc": "auroc/validation",
    "label_free": "auroc/label_free",
}
#: Images of each kind in a step.
_IMAGES = 12


class Board:
    """One training's log. `spec` is None where samples are no images."""

    def __init__(self, writer: SummaryWriter, spec: InputSpec | None) -> None:
        self._writer, self._spec = writer, spec

    def epoch(self, row: Mapping[str, Any], state: State) -> None:
        """Logs a row of the training curve, and what G makes where something was measured."""
        measured = False
        for column, tag in _TAGS.items():
            if row[column] is not None:
                measured = measured or tag.startswith("auroc")
                self._scalar(tag, row[column], row["epoch"])
        if measured and self._spec is not None:
            made = draw_fakes(state, self._spec, _IMAGES)
            self.show("images/fake_normal", made.normal, row["epoch"])
            self.show("images/fake_anomalous", made.anomalous, row["epoch"])

    def show(self, tag: str, images: Images, epoch: int) -> None:
        """Logs images (n, H, W, 3) as one picture; nothing where there are none."""
        if len(images):
            self._writer.add_image(tag, sheet(images), epoch, dataformats="HWC")

    def _scalar(self, tag: str, value: float, epoch: int) -> None:
        self._writer.add_scalar(tag, value, epoch)


@contextmanager
def open_board(folder: Path | None, state: State, spec: Spec, train: Tensor) -> Iterator[Board | None]:
    """Opens a training's log, or yields None where none is wanted.

    A resumed training goes on in the same folder; what the interrupted one logged of later epochs is dropped.

    Args:
        folder: For event files, made where there is none; None: no log.
        state: Where training stands.
        spec: Of the bundle: samples are shown for images only.
        train: (n, …) what is trained on.

    Raises:
        PluginError: The package `tensorboard` is not installed.
    """
    if folder is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PluginError(
            "--tensorboard needs the Python package tensorboard: pip install 'algan-stream[tensorboard]'"
        ) from error
    purge = state.epoch + 1 if state.epoch else None
    writer = SummaryWriter(folder, purge_step=purge)
    try:
        shown = spec if isinstance(spec, InputSpec) and state.config.network.kind == "image" else None
        board = Board(writer, shown)
        if shown is not None:
            board.show("images/real", to_rgb(train[:_IMAGES].float().cpu().numpy(), shown), state.epoch)
        yield board
    finally:
        writer.close()
