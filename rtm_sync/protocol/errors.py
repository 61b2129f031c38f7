"""What is wrong with a frame that is not one of ours."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from .requests import Request


class RpcCode(IntEnum):
    """JSON-RPC 2.0's own error codes, for what is wrong before a request's family is known."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602


class ProtocolError(Exception):
    """A frame that is not one of ours.

    Attributes:
        code: what JSON-RPC calls the trouble.
        call_id: the id to answer under, where the frame had one.
        request: the kind of request, where it was known.
    """

    def __init__(
        self,
        code: RpcCode,
        message: str,
        call_id: int | None = None,
        request: type[Request[Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.call_id = call_id
        self.request = request
