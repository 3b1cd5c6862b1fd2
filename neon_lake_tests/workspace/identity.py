"""Who may call: a personal access token, and a service principal that fetches tokens which expire.

Source: https://docs.databricks.com/dev-tools/auth/oauth-m2m
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from neon_lake_tests.workspace.refusals import Refused

USER = "tester@example.com"
ORGANISATION = "1234567890123456"
LIFETIME = 3600.0

_OPEN = ("/oidc/", "/.well-known/", "/presigned/", "/test")
"""Paths that want no credentials."""


@dataclass(kw_only=True)
class Identity:
    """The credentials that are accepted. `lifetime` of fetched tokens is in seconds."""

    token: str = field(default_factory=lambda: f"dapi{secrets.token_hex(16)}", repr=False)
    client_id: str = field(default_factory=lambda: secrets.token_hex(16))
    client_secret: str = field(default_factory=lambda: f"dose{secrets.token_hex(16)}", repr=False)
    lifetime: float = LIFETIME
    _fetched: dict[str, float] = field(default_factory=dict, repr=False)

    def routes(self) -> list[Route]:
        """What this answers to."""
        return [
            Route("/oidc/.well-known/oauth-authorization-server", self._endpoints),
            Route("/.well-known/databricks-config", self._discovery),
            Route("/oidc/v1/token", self._fetch, methods=["POST"]),
            Route("/api/2.0/preview/scim/v2/Me", self._me),
        ]

    def expire(self, age: float = 0.0) -> None:
        """From now on, tokens that were fetched so many seconds ago are refused; new ones can be fetched."""
        newest = time.monotonic() - age
        self._fetched = {
            token: 0.0 if until - self.lifetime <= newest else until for token, until in self._fetched.items()
        }

    def check(self, header: str | None) -> None:
        """Refuse a request whose `Authorization` header is not one of ours."""
        scheme, _, given = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Refused(401, 401, "Credential was not sent or was of an unsupported type for this API.")
        if secrets.compare_digest(given.encode(), self.token.encode()):
            return
        until = self._fetched.get(given)
        if until is None:
            raise Refused(403, 403, "Invalid access token.")
        if time.monotonic() >= until:
            raise Refused(403, 403, "Invalid Token")

    # --- OAuth, machine to machine

    def _endpoints(self, request: Request) -> Response:
        base = f"{request.url.scheme}://{request.url.netloc}/oidc"
        return JSONResponse(
            {"issuer": base, "authorization_endpoint": f"{base}/v1/authorize", "token_endpoint": f"{base}/v1/token"}
        )

    def _discovery(self, request: Request) -> Response:
        host = f"{request.url.scheme}://{request.url.netloc}"
        return JSONResponse({"oidc_endpoint": f"{host}/oidc", "workspace_id": ORGANISATION})

    async def _fetch(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, status_code=400)
        given = _basic(request) or (form.get("client_id"), form.get("client_secret"))
        if given != (self.client_id, self.client_secret):
            said = {"error": "invalid_client", "error_description": "Client authentication failed"}
            return JSONResponse(said, status_code=401)
        token = secrets.token_urlsafe(48)
        self._fetched[token] = time.monotonic() + self.lifetime
        return JSONResponse(
            {
                "access_token": token,
                "scope": "all-apis",
                "token_type": "Bearer",
                "expires_in": max(int(self.lifetime), 1),
            }
        )

    def _me(self, _: Request) -> Response:
        body = {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": "1",
            "userName": USER,
            "displayName": USER,
            "active": True,
            "emails": [{"type": "work", "value": USER, "primary": True}],
            "groups": [{"display": "users", "type": "direct", "value": "2", "$ref": "Groups/2"}],
        }
        return JSONResponse(body, headers={"x-databricks-org-id": ORGANISATION})


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(given).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(name), unquote_plus(secret)


class Authorized:
    """Lets a request through to the application when its credentials are good, or when it wants none."""

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        self._app, self._identity = app, identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                self._check(scope["path"], request.headers.get("authorization"))
            except Refused as refusal:
                await refusal.answer(request)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, path: str, header: str | None) -> None:
        if not path.startswith(_OPEN):
            self._identity.check(header)
        elif path.startswith("/presigned/") and header is not None:
            # object stores refuse a signed address that comes with other credentials
            raise Refused(400, "InvalidArgument", "Only one auth mechanism allowed")
