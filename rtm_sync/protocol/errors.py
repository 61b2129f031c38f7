"""Errors of invalid frames."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from .requests import Request


class RpcCode(IntEnum):
    """The error codes of JSON-RPC 2.0, for frames whose error family is not known."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602


class ProtocolError(Exception):
    """An invalid frame.

    Attributes:
        code: the JSON-RPC error code.
        message: one sentence that describes the error.
        call_id: the id of the call to answer, or None.
        request: the type of the request, or None when it is not known.
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
