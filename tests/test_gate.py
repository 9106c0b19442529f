"""No engine serves before it gives the bundle's own answers on this machine."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from algan_stream.bundle import Bundle, Manifest
from algan_stream.calibration import with_raw_threshold
from algan_stream.engines import gate
from algan_stream.engines.gate import check_golden, open_engine
from algan_stream.errors import EngineError, GateError
from fakes import FakeEngine


def _changed(bundle: Bundle, **manifest: object) -> Bundle:
    changed: Manifest = msgspec.structs.replace(bundle.manifest, **manifest)
    return Bundle(bundle.path, changed)


def _engine(bundle: Bundle, logits: npt.NDArray[np.float32]) -> FakeEngine:
    """Answers the golden images with these logits."""
    return FakeEngine(max_batch=len(logits), on_finish=lambda *_: logits, spec=bundle.manifest.input_spec)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_true_engine_passes(bundle: Bundle, precision: str) -> None:
    try:
        engine = open_engine(bundle, {"kind": "openvino", "precision": precision, "threads": 1})
    except GateError:
        raise
    except EngineError as error:
        pytest.skip(str(error))
    report = check_golden(bundle, engine)
    engine.close()
    assert report.images == 4
    assert report.max_logit_difference <= report.tolerance == bundle.manifest.tolerance[precision]
    assert report.max_input_difference <= gate.INPUT_TOLERANCE
    if precision == "bf16":
        assert report.max_logit_difference > bundle.manifest.tolerance["fp32"]  # it really was bf16


@pytest.mark.parametrize("image", range(4))
@pytest.mark.parametrize("change", ["beyond", "nan", "inf"])
def test_one_altered_logit_is_refused(bundle: Bundle, image: int, change: str) -> None:
    logits = bundle.golden().logits.copy()
    step = 1.5 * bundle.manifest.tolerance["fp32"]
    logits[image] = {"beyond": logits[image] + step, "nan": np.nan, "inf": np.inf}[change]
    with pytest.raises(GateError, match=r"fake 1 none fp32 differs from the bundle's golden logits"):
        check_golden(bundle, _engine(bundle, logits))


def test_within_tolerance_passes(bundle: Bundle) -> None:
    logits = bundle.golden().logits + 0.5 * bundle.manifest.tolerance["fp32"]
    report = check_golden(bundle, _engine(bundle, logits))
    assert report.max_logit_difference == pytest.approx(0.5 * bundle.manifest.tolerance["fp32"], rel=0.1)


def test_a_flipped_verdict_is_refused_even_within_tolerance(bundle: Bundle) -> None:
    golden = bundle.golden().logits
    step = np.float32(bundle.manifest.tolerance["fp32"] / 2)
    threshold = float(-golden[2] + step / 2)
    near = _changed(bundle, calibration=with_raw_threshold([0.0], threshold))
    assert check_golden(near, _engine(near, golden)).images == 4
    with pytest.raises(GateError, match=r"turns the verdict of golden images \[2\] around"):
        check_golden(near, _engine(near, golden - step))
    check_golden(_changed(near, calibration=None), _engine(near, golden - step))


def test_a_precision_without_tolerance_is_refused(bundle: Bundle) -> None:
    strict = _changed(bundle, tolerance={"int8": 1.0, "bf16": 1.0})
    with pytest.raises(GateError, match="states no tolerance for fp32, only for bf16, int8"):
        check_golden(strict, _engine(strict, bundle.golden().logits))


def test_preprocessing_that_differs_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gate.preprocess
    monkeypatch.setattr(gate, "preprocess", lambda *a, **k: real(*a, **k) + 2 * gate.INPUT_TOLERANCE)
    with pytest.raises(GateError, match="this build of _core must not serve"):
        check_golden(bundle, _engine(bundle, bundle.golden().logits))


def test_open_engine_lets_nothing_else_through(bundle: Bundle) -> None:
    with pytest.raises(GateError, match="differs from the bundle's golden logits"):
        open_engine(_changed(bundle, tolerance={"fp32": 0.0}), {"kind": "openvino", "threads": 1})
