"""Answers that say no: an HTTP status, Databricks' code and a sentence."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """A request that is not carried out.

    `reason` is Databricks' finer name of why, where its answers have one.
    """

    def __init__(self, status: int, code: str | int, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.reason = status, code, message, reason

    def answer(self, request: Request) -> Response:
        """The answer; the one to HEAD has no body."""
        if request.method == "HEAD":
            return Response(status_code=self.status)
        body: dict[str, Any] = {"error_code": self.code, "message": self.message}
        if self.reason is not None:
            kind = "type.googleapis.com/google.rpc.ErrorInfo"
            body["details"] = [{"@type": kind, "reason": self.reason, "domain": "filesystem.databricks.com"}]
        return JSONResponse(body, status_code=self.status)


def not_found(message: str) -> Refused:
    """What is asked for is not there."""
    return Refused(404, "NOT_FOUND", message)


def already_exists(message: str) -> Refused:
    """What is to be made is there already."""
    return Refused(409, "ALREADY_EXISTS", message)


def invalid(message: str, *, reason: str | None = None) -> Refused:
    """The request is not one that can be carried out."""
    return Refused(400, "INVALID_PARAMETER_VALUE", message, reason=reason)


async def refused(request: Request, exc: Exception) -> Response:
    """Starlette's handler of `Refused`."""
    assert isinstance(exc, Refused)
    return exc.answer(request)
