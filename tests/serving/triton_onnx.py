"""A model for Triton's `python` backend that stands for its `onnxruntime` backend, which no wheel has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """Runs `model.onnx` beside this file on one processor; the name is Triton's."""

    def initialize(self, _: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(Path(__file__).parent / "model.onnx"), options)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = triton.get_input_tensor_by_name(request, "input").as_numpy()
        (logits,) = self._session.run(["logit"], {"input": inputs})
        return triton.InferenceResponse([triton.Tensor("logit", logits)])
