"""Asks a running line by its control socket."""

from __future__ import annotations

from typing import TypeVar

import zmq

from algan_stream import control_wire as wire
from algan_stream.errors import AlganError, ProtocolError

_A = TypeVar("_A", bound=wire.Answer)


class FailedError(AlganError):
    """What a line answered; ends the command with the exit code that it named."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Line:
    """The control socket of a line, as a client sees it.

    Args:
        endpoint: Where it is bound.
        timeout_s: Longest wait for an answer.
    """

    def __init__(self, endpoint: str, timeout_s: float) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s

    def ask(self, request: wire.Request, expected: type[_A]) -> _A:
        """Sends a request and waits for its answer.

        Raises:
            ProtocolError: None came in time, or another one than was expected.
            AlganError: The line refused; with its exit code.
        """
        # A socket for each request: one that was not answered can send no second.
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._endpoint)
            socket.send(wire.encode(request))
            if not socket.poll(round(self._timeout_s * 1e3)):
                raise ProtocolError(
                    f"{self._endpoint}: no answer within {self._timeout_s:g} s; does it run, as this user?"
                )
            answer = wire.decode_answer(socket.recv())
        if isinstance(answer, wire.Refused):
            raise FailedError(answer.message, answer.exit_code)
        if not isinstance(answer, expected):
            raise ProtocolError(
                f"{self._endpoint}: expected {expected.__name__}, got {type(answer).__name__}"
            )
        return answer

    def status(self) -> wire.LineStatus:
        """How it is."""
        return self.ask(wire.GetStatus(), wire.LineStatus)
