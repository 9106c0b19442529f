"""One engine after the other before the golden gate: its answers, how far off they are, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import numpy as np
import yaml

from algan_stream import plugins
from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import check_golden
from algan_stream.errors import AlganError, ConfigError, EngineError
from algan_stream.measures import Judged

Answers = dict[str, Judged]
#: Time for the measurement of one engine's speed.
_SECONDS = 0.5
#: Keys of an engine's section that say where it computes, the first that it has counts.
_PLACES = ("device", "provider", "url")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An engine to verify.

    Attributes:
        name: KIND[:precision[:device]].
        section: The same as a section `engine`.
        by_name: The user asked for this one.
    """

    name: str
    section: dict[str, Any]
    by_name: bool


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        name: As in `Wanted`.
        by_name: Likewise.
        state: `passed` the gate; `refused` by it; `unavailable`: could not be opened here.
        reason: Why it did not pass.
        engine: What it is; see `EngineIdentity`. Empty if it could not be opened.
        golden_images: How many it was asked.
        max_score_difference: From the bundle's golden scores; None if there was no answer.
        tolerance: What the bundle allows in this precision; None if it says nothing.
        flips: Numbers of golden images whose verdict turned around.
        ms_per_image: In batches as they come by default, one at a time.
        times_first: Speed over that of the first engine that passed.
    """

    name: str
    by_name: bool
    state: Literal["passed", "refused", "unavailable"]
    reason: str = ""
    engine: str = ""
    golden_images: int = 0
    max_score_difference: float | None = None
    tolerance: float | None = None
    flips: list[int] = []
    ms_per_image: float | None = None
    times_first: float | None = None


def parse(name: str) -> Wanted:
    """Reads KIND[:precision[:device]], or a whole section as in a line's YAML, `{kind: …, …}`.

    Raises:
        ConfigError: It has no such form, or the kind no such choice.
        PluginError: The kind is unknown.
    """
    if name.startswith("{"):
        return Wanted(name=name, section=_section(name), by_name=True)
    kind, *more = name.split(":", 2)
    config = plugins.find("engines", kind, "--engine").Config
    keys = ("precision", next((key for key in _PLACES if key in config.__struct_fields__), "device"))
    section = {"kind": kind, **{key: value for key, value in zip(keys, more, strict=False) if value}}
    if unknown := [key for key in section if key not in config.__struct_fields__]:
        raise ConfigError(f"--engine {name}: {kind} has no choice of {unknown[0]}")
    return Wanted(name=name, section=section, by_name=True)


def _section(text: str) -> dict[str, Any]:
    try:
        section = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--engine {text}: is not valid YAML: {error}") from error
    plugins.find("engines", section.get("kind"), "--engine")
    return dict(section)


def everything() -> list[Wanted]:
    """Every kind, with each precision that it knows, on each device that it finds here."""
    found = []
    for kind in sorted(plugins.kinds("engines"), key=lambda kind: (kind != "openvino", kind)):
        try:
            module = plugins.find("engines", kind, "engine")
            precisions = get_args(get_type_hints(module.Config).get("precision")) or ("",)
            devices = module.devices() if hasattr(module, "devices") else [""]
        except AlganError:
            precisions, devices = ("",), [""]  # opening it will say what is missing
        for device in devices:
            for precision in precisions:
                name = ":".join((kind, precision, device)).rstrip(":")
                try:
                    found.append(msgspec.structs.replace(parse(name), by_name=False))
                except AlganError:
                    found.append(Wanted(name=name, section={"kind": kind}, by_name=False))
    return found


def attempt(
    bundle: Bundle, wanted: Wanted, ask: Callable[[Engine], Answers] | None
) -> tuple[Trial, Answers | None]:
    """Opens an engine, lets it before the gate, and if it passes takes its time and its answers."""
    trial = Trial(name=wanted.name, by_name=wanted.by_name, state="unavailable")
    try:
        module, config = plugins.load("engines", wanted.section, "engine")
        engine: Engine = module.create(bundle, config)
    except AlganError as error:
        return msgspec.structs.replace(trial, reason=str(error)), None
    except Exception as error:  # noqa: BLE001  one broken engine must not hide the others
        return msgspec.structs.replace(trial, reason=f"{type(error).__name__}: {error}"), None
    try:
        trial = _before_the_gate(bundle, engine, trial)
        answers = ask(engine) if ask and trial.state == "passed" else None
    except EngineError as error:
        trial, answers = msgspec.structs.replace(trial, state="refused", reason=str(error)), None
    finally:
        engine.close()
    return trial, answers


def _before_the_gate(bundle: Bundle, engine: Engine, trial: Trial) -> Trial:
    golden = bundle.golden()
    trial = msgspec.structs.replace(
        trial,
        state="refused",
        engine=str(engine.identity),
        golden_images=golden.logits.size,
        tolerance=bundle.manifest.tolerance.get(engine.identity.precision),
    )
    logits = engine.infer(golden.inputs)
    flips: list[int] = []
    if bundle.manifest.calibration is not None:
        threshold = bundle.manifest.calibration.threshold
        flips = np.flatnonzero((-logits > threshold) != (-golden.logits > threshold)).tolist()
    trial = msgspec.structs.replace(
        trial, max_score_difference=float(np.abs(logits - golden.logits).max()), flips=flips
    )
    try:
        check_golden(bundle, engine)
    except EngineError as error:
        return msgspec.structs.replace(trial, reason=str(error))
    return msgspec.structs.replace(trial, state="passed", ms_per_image=_ms_per_image(engine, golden.inputs))


def _ms_per_image(engine: Engine, inputs: Any) -> float:
    batch = np.resize(inputs, (engine.max_batch, *inputs.shape[1:]))
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        count += len(engine.infer(batch))
    return 1000 * (time.perf_counter() - started) / count


def with_ratios(trials: list[Trial]) -> list[Trial]:
    """The same, with every speed over that of the first that passed."""
    first = next((trial.ms_per_image for trial in trials if trial.ms_per_image is not None), None)
    return [
        msgspec.structs.replace(trial, times_first=first / trial.ms_per_image)
        if first is not None and trial.ms_per_image
        else trial
        for trial in trials
    ]
