"""Writes a bundle's model into the repository of an inference server, all at once or not at all."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from algan_deploy.serving import ovms, triton
from algan_stream.bundle import MODEL, QUANTIZED, Bundle
from algan_stream.errors import BundleError, ConfigError

Server = Literal["triton", "ovms"]
#: Marks a model's folder as written here; servers ignore it.
MARK = "algan-export.json"
DEFAULT_MAX_BATCH = 8


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was exported, in `algan-export.json`.

    Attributes:
        to: Kind of server.
        bundle: Name of the bundle.
        precision: What the server will compute in.
        model_sha256: Of the ONNX graph.
        file_sha256: Of the file that is served; another one for an engine file.
    """

    to: Server
    bundle: str
    precision: str
    model_sha256: str
    file_sha256: str


@dataclass(frozen=True)
class Options:
    """How the model shall be served.

    Attributes:
        to: Kind of server.
        name: Of the model; "" = the bundle's name, with `-` for what cannot stand in a URL.
        max_batch: Most images in one run; None = 8. Only for Triton: the other takes any number.
        instances: Batches that run at the same time.
        precision: `fp32` or `int8`; with an engine file also `fp16`: what it was built for.
        plan: A TensorRT engine built from the bundle's graph, to serve instead of it; only for Triton.
    """

    to: Server
    name: str = ""
    max_batch: int | None = None
    instances: int = 1
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    plan: Path | None = None

    def __post_init__(self) -> None:
        for option, value in (("--max-batch", self.max_batch), ("--instances", self.instances)):
            if value is not None and not 1 <= value <= 1024:
                raise ConfigError(f"{option}: expected 1 to 1024, got {value}")
        if self.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise ConfigError(f"--name: expected letters, digits, `_`, `.` and `-`, got {self.name!r}")
        if self.max_batch is not None and self.to != "triton":
            raise ConfigError("--max-batch: OpenVINO Model Server takes batches of any size; leave it out")
        if self.plan is not None and self.to != "triton":
            raise ConfigError(
                f"--plan: OpenVINO Model Server cannot serve a TensorRT engine ({self.plan}); leave it out"
            )
        if self.precision == "fp16" and self.plan is None:
            raise ConfigError(
                "--precision: fp16 needs an engine file that was built for it; give --plan, or use fp32"
            )


def export(bundle: Bundle, out: Path, options: Options) -> Path:
    """Writes `out/NAME/…` and returns that folder; an earlier export of that name there is replaced.

    Args:
        bundle: What to serve.
        out: The server's model repository; other models in it stay as they are.
        options: How to serve it.

    Raises:
        BundleError: The bundle lacks the precision, `out` cannot be written, or a folder of that name in it
            is not an export of ours; what stood there stands as before.
        ConfigError: The engine file cannot be read.
    """
    name = options.name or re.sub(r"[^A-Za-z0-9_-]+", "-", bundle.manifest.name).strip("-_") or "model"
    target = out / name
    model = bundle.model_for(options.precision)
    served = options.plan or model
    is_plan = options.plan is not None
    mark = Mark(
        to=options.to,
        bundle=bundle.manifest.name,
        precision=options.precision,
        model_sha256=bundle.manifest.files[QUANTIZED if options.precision == "int8" else MODEL].sha256,
        file_sha256=_sha256(served),
    )
    _check_own(target)
    config = None
    if options.to == "ovms":
        entry = ovms.entry(name, options.instances)
        config = ovms.merged(out / ovms.CONFIG, entry)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out) as aside:
            staged = Path(aside) / "new" / name
            (staged / triton.VERSION).mkdir(parents=True)
            shutil.copyfile(served, staged / triton.VERSION / triton.model_file(is_plan=is_plan))
            if options.to == "triton":
                text = triton.config_pbtxt(
                    bundle,
                    name,
                    sha256=mark.model_sha256,
                    precision=options.precision,
                    max_batch=options.max_batch or DEFAULT_MAX_BATCH,
                    instances=options.instances,
                    is_plan=is_plan,
                )
                (staged / "config.pbtxt").write_text(text, "utf-8")
            (staged / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(mark), indent=2) + b"\n")
            _put(staged, target, Path(aside))
            if config is not None:
                _write(out / ovms.CONFIG, config, Path(aside))
    except OSError as error:
        raise BundleError(f"{target}: cannot be written: {error.strerror}") from error
    return target


def _check_own(target: Path) -> None:
    """Only a folder that an earlier export wrote may be replaced."""
    if not (target.exists() or target.is_symlink()):
        return
    try:
        msgspec.json.decode((target / MARK).read_bytes(), type=Mark)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(
            f"{target}: exists and was not written by `algan-stream export`; choose another --name or --out"
        ) from error


def _put(staged: Path, target: Path, aside: Path) -> None:
    """Moves a finished folder to its place; what stood there goes aside, and back if that fails."""
    previous = aside / "old"
    if target.exists():
        target.rename(previous)
    try:
        staged.rename(target)
    except OSError:
        if previous.exists():
            previous.rename(target)
        raise


def _write(path: Path, data: bytes, aside: Path) -> None:
    staged = aside / path.name
    staged.write_bytes(data + b"\n")
    staged.chmod(0o644)
    staged.replace(path)


def _sha256(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise ConfigError(f"{path}: is empty; expected a TensorRT engine file")
    return hashlib.sha256(data).hexdigest()
