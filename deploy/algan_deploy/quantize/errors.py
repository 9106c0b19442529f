"""What can go wrong with int8."""

from __future__ import annotations

from algan_stream.errors import AlganError


class QuantizationError(AlganError):
    """No int8 graph of the model is good enough, or none can be made."""

    exit_code = 9
