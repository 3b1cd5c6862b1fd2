"""Requests that go wrong on purpose, and a list of all that came.

A rule says which requests it is for, which of them it happens to, and what happens:

- `method`, and `path` and `body`, expressions that are looked for in the path with its query, and in a JSON body;
- `nth`: it happens to the nth such request, and `times` in a row (1 if not said, 0: always);
- `every`: it happens to every nth one, but not to the same request twice running: what is sent again arrives;
- `do`: what happens, with its own fields; see `Rule`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neon_lake_tests.workspace.identity import Identity
from neon_lake_tests.workspace.refusals import invalid
from neon_lake_tests.workspace.statements import Statements

_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(kw_only=True)
class Rule:
    """What happens to some requests.

    `do` is one of:
    duplicate: it is carried out twice, the second answer is given;
    delay: it is carried out, and answered `ms` later; with `carry` false it is carried out only then;
    late: the connection ends at once, and it is carried out after the next request of this rule has been;
    drop_before, drop_after: the connection ends without an answer, before or after it is carried out;
    status: the answer is `status`, with `retry_after` seconds if said; with `carry` it is carried out before; with
    `plain` the answer is a page of a proxy and no JSON;
    cut_upload, cut_answer: the connection ends in the middle of the body;
    expire_tokens: all tokens that were fetched `ms` ago or earlier are expired before it is looked at;
    stop_warehouse: the warehouse stops when the statement that it begins has started to run; with `carry` the engine
    does its work all the same;
    slow_statement: the statement that it begins runs for `ms` before the engine does its work, or until it is
    cancelled; with `carry` the engine does its work then all the same.
    """

    do: str
    method: str | None = None
    path: str = ""
    body: str | None = None
    nth: int = 1
    every: int | None = None
    times: int = 1
    ms: int = 0
    carry: bool | None = None
    status: int = 503
    retry_after: int | None = None
    plain: bool = False
    matched: int = 0
    happened: int = 0
    hit: set[tuple[str, str, str]] = field(default_factory=set)

    def takes(self, method: str, path: str, body: str) -> bool:
        """Whether it happens to this request."""
        if self.method not in (None, method) or not re.search(self.path, path):
            return False
        if self.body is not None and not re.search(self.body, body):
            return False
        self.matched += 1
        if self.every is not None:
            request = (method, path, body)
            now = self.matched % self.every == 0 and self.times in (0, *range(self.happened + 1, self.times + 1))
            now = now and request not in self.hit
            (self.hit.add if now else self.hit.discard)(request)
        else:
            now = self.matched >= self.nth and (self.times == 0 or self.happened < self.times)
        self.happened += now
        return now


@dataclass(kw_only=True)
class Seen:
    """A request that came. `status` is None as long as it has no answer; `taken` bytes came, `given` went back."""

    method: str
    path: str
    status: int | None = None
    taken: int = 0
    given: int = 0
    carried: int = 0
    fault: str | None = None
    statement: str | None = None


@dataclass(kw_only=True)
class _Call:
    """One request on its way. `body` is None as long as it has not been read."""

    scope: Scope
    receive: Receive
    send: Send
    seen: Seen
    body: bytes | None = None


class Faults:
    """Stands before the application, and has the rules and the list of requests."""

    def __init__(self, app: ASGIApp, identity: Identity, statements: Statements) -> None:
        self._app, self._identity, self._statements = app, identity, statements
        self._rules: list[Rule] = []
        self._seen: deque[Seen] = deque(maxlen=100_000)
        self._held: list[tuple[Rule, _Call]] = []
        self._acts: dict[str, Callable[[Rule, _Call], Awaitable[None]]] = {
            "duplicate": self._duplicate,
            "delay": self._delay,
            "late": self._late,
            "drop_before": self._drop_before,
            "drop_after": self._drop_after,
            "status": self._status,
            "cut_upload": self._cut_upload,
            "cut_answer": self._cut_answer,
            "expire_tokens": self._expire_tokens,
            "stop_warehouse": self._stop_warehouse,
            "slow_statement": self._slow_statement,
        }

    def routes(self) -> list[Route]:
        """What tests say to it. All are coroutines: in threads they would meet lists that change under them."""
        return [
            Route("/test/faults", self._add, methods=["POST"]),
            Route("/test/faults", self._list, methods=["GET"]),
            Route("/test/faults", self._clear, methods=["DELETE"]),
            Route("/test/requests", self._requests, methods=["GET"]),
            Route("/test/requests", self._forget, methods=["DELETE"]),
        ]

    def clear(self) -> None:
        """No rules, and no requests seen. What was held back is never carried out."""
        self._rules, self._held = [], []
        self._seen.clear()
        self._statements.forget()

    async def _add(self, request: Request) -> Response:
        known = {each.name for each in fields(Rule)} - {"hit"}
        for given in (await request.json())["rules"]:
            if given.get("do") not in self._acts or not set(given) <= known:
                raise invalid(f"That is no rule: {given}.")
            self._rules.append(Rule(**given))
        return JSONResponse({})

    async def _list(self, _: Request) -> Response:
        return JSONResponse({"rules": [asdict(rule) | {"hit": len(rule.hit)} for rule in self._rules]})

    async def _clear(self, _: Request) -> Response:
        self._rules, self._held = [], []
        return JSONResponse({})

    async def _requests(self, _: Request) -> Response:
        return JSONResponse({"requests": [asdict(seen) for seen in self._seen]})

    async def _forget(self, _: Request) -> Response:
        self._seen.clear()
        return JSONResponse({})

    # --- a request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/test"):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = scope["path"] + (f"?{request.url.query}" if request.url.query else "")
        seen = Seen(method=scope["method"], path=path)
        self._seen.append(seen)
        call = _Call(scope=scope, receive=receive, send=send, seen=seen)
        text = ""
        if request.headers.get("content-type", "").startswith("application/json"):
            text = (await _body(call)).decode("utf-8", "replace")
            if scope["path"].rstrip("/") == "/api/2.0/sql/statements":
                seen.statement = _statement(text)
        rule = next((each for each in self._rules if each.takes(seen.method, path, text)), None)
        held = [each for each in self._held if rule is None and _same(each, seen)]
        if rule is None:
            await self._carry(call, send)
        else:
            seen.fault = rule.do
            await self._acts[rule.do](rule, call)
        for each in held:
            self._held.remove(each)
            await self._carry(each[1], _nowhere)

    async def _carry(self, call: _Call, send: Send) -> None:
        """Carry a request out; the first time from the connection, if its body has not been read yet."""
        seen = call.seen
        seen.carried += 1

        async def receive() -> Message:
            message = await call.receive()
            seen.taken += len(message.get("body", b""))
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
            elif message["type"] == "http.response.body":
                seen.given += len(message.get("body", b""))
            await send(message)

        await self._app(dict(call.scope), receive if call.body is None else _again(call), answer)

    # --- what happens

    async def _duplicate(self, _: Rule, call: _Call) -> None:
        await _body(call)
        await self._carry(call, _nowhere)
        await self._carry(call, call.send)

    async def _delay(self, rule: Rule, call: _Call) -> None:
        messages: list[Message] = []
        if rule.carry is False:
            await _body(call)
            await asyncio.sleep(rule.ms / 1000)
            await self._carry(call, call.send)
            return

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._carry(call, keep)
        await asyncio.sleep(rule.ms / 1000)
        for message in messages:
            await call.send(message)

    async def _late(self, rule: Rule, call: _Call) -> None:
        await _body(call)
        self._held.append((rule, call))
        await _cut(call)

    async def _drop_before(self, _: Rule, call: _Call) -> None:
        await _cut(call)

    async def _drop_after(self, _: Rule, call: _Call) -> None:
        await self._carry(call, _nowhere)
        await _cut(call)

    async def _status(self, rule: Rule, call: _Call) -> None:
        if rule.carry:
            await self._carry(call, _nowhere)
        else:
            await _body(call)
        call.seen.status = rule.status
        headers = {} if rule.retry_after is None else {"retry-after": str(rule.retry_after)}
        answer: Response = JSONResponse(
            {"error_code": _CODES.get(rule.status, "UNKNOWN"), "message": "This answer was asked for by a test."},
            status_code=rule.status,
            headers=headers,
        )
        if rule.plain:
            page = "<html><body><h1>Service Temporarily Unavailable</h1></body></html>"
            answer = HTMLResponse(page, status_code=rule.status, headers=headers)
        await answer(call.scope, call.receive, call.send)

    async def _cut_upload(self, _: Rule, call: _Call) -> None:
        length = int(Request(call.scope).headers.get("content-length") or 0)
        left, cut = length // 2, False

        async def receive() -> Message:
            nonlocal left, cut
            if cut:
                return {"type": "http.disconnect"}
            message = await call.receive()
            chunk = message.get("body", b"")[:left]
            left -= len(chunk)
            call.seen.taken += len(chunk)
            cut = left <= 0
            return {"type": "http.request", "body": chunk, "more_body": True}

        await self._app(dict(call.scope), receive, _nowhere)
        await _cut(call)

    async def _cut_answer(self, _: Rule, call: _Call) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._carry(call, keep)
        body = b"".join(message.get("body", b"") for message in messages)
        await call.send(messages[0])
        await call.send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await _cut(call, orderly=True)

    async def _expire_tokens(self, rule: Rule, call: _Call) -> None:
        self._identity.expire(rule.ms / 1000)
        await self._carry(call, call.send)

    async def _stop_warehouse(self, rule: Rule, call: _Call) -> None:
        self._statements.stop_next(carry=bool(rule.carry))
        await self._carry(call, call.send)

    async def _slow_statement(self, rule: Rule, call: _Call) -> None:
        self._statements.slow_next(rule.ms / 1000, carry=bool(rule.carry))
        await self._carry(call, call.send)


async def _body(call: _Call) -> bytes:
    """The whole body, which can be read again from now on."""
    if call.body is None:
        pieces, more = [], True
        while more:
            message = await call.receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        call.body = b"".join(pieces)
        call.seen.taken = len(call.body)
    return call.body


def _again(call: _Call) -> Receive:
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await call.receive()
        given = True
        return {"type": "http.request", "body": call.body, "more_body": False}

    return receive


async def _nowhere(_: Message) -> None:
    """An answer that nobody gets."""


async def _cut(call: _Call, *, orderly: bool = False) -> None:
    """End the connection, and wait until it has ended. `orderly`: after what was sent has gone out."""
    transport = call.scope["state"]["transport"]
    if orderly:
        transport.close()
    else:
        transport.abort()
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _same(held: tuple[Rule, _Call], seen: Seen) -> bool:
    rule, _ = held
    return rule.method in (None, seen.method) and re.search(rule.path, seen.path) is not None


def _statement(text: str) -> str | None:
    try:
        body: Mapping[str, Any] = json.loads(text)
    except ValueError:
        return None
    return str(body.get("statement"))
