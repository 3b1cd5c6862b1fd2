"""The SQL warehouse: it is started, by a request or by the first statement, and takes a while for that.

Source: https://docs.databricks.com/api/workspace/warehouses
"""

from __future__ import annotations

import secrets
import threading
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from neon_lake_tests.workspace.identity import USER
from neon_lake_tests.workspace.refusals import Refused

_LOOKS = 2
"""How often a starting warehouse is looked at until it runs."""


class Warehouse:
    """The one that a workspace has. It runs from the start."""

    def __init__(self, engine: str) -> None:
        self.id = secrets.token_hex(8)
        self.engine = engine
        self._lock = threading.Lock()
        self._state, self._looks = "RUNNING", 0

    @property
    def state(self) -> str:
        """RUNNING, STOPPED or STARTING."""
        return self._state

    def look(self) -> str:
        """The state, as somebody sees who asks for it; a starting warehouse gets on with it."""
        with self._lock:
            seen = self._state
            if seen == "STARTING":
                self._looks -= 1
                if self._looks <= 0:
                    self._state = "RUNNING"
            return seen

    def start(self) -> None:
        """Begin to start, unless it runs or starts."""
        with self._lock:
            if self._state == "STOPPED":
                self._state, self._looks = "STARTING", _LOOKS

    def run(self) -> None:
        """Run at once."""
        with self._lock:
            self._state = "RUNNING"

    def stop(self) -> None:
        """Stop at once."""
        with self._lock:
            self._state = "STOPPED"

    def ensure(self, given: str) -> None:
        """Refuse the id of another warehouse."""
        if given != self.id:
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"SQL warehouse {given} does not exist.")

    # --- HTTP

    def routes(self) -> list[Route]:
        """What this answers to, but for `stop`: that is the statements' affair too."""
        return [
            Route("/api/2.0/sql/warehouses", self._list, methods=["GET"]),
            Route("/api/2.0/sql/warehouses/{id}", self._get, methods=["GET"]),
            Route("/api/2.0/sql/warehouses/{id}/start", self._start, methods=["POST"]),
        ]

    def _list(self, _: Request) -> Response:
        return JSONResponse({"warehouses": [self._described(self._state)]})

    def _get(self, request: Request) -> Response:
        self.ensure(request.path_params["id"])
        return JSONResponse(self._described(self.look()))

    def _start(self, request: Request) -> Response:
        self.ensure(request.path_params["id"])
        self.start()
        return JSONResponse({})

    def _described(self, state: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": f"for tests, on {self.engine}",
            "size": "XXSMALL",
            "cluster_size": "2X-Small",
            "min_num_clusters": 1,
            "max_num_clusters": 1,
            "auto_stop_mins": 10,
            "creator_name": USER,
            "state": state,
            "num_clusters": int(state == "RUNNING"),
            "num_active_sessions": 0,
            "enable_photon": True,
            "enable_serverless_compute": True,
            "warehouse_type": "PRO",
            "spot_instance_policy": "COST_OPTIMIZED",
            "odbc_params": {"hostname": "127.0.0.1", "path": f"/sql/1.0/warehouses/{self.id}", "port": 443},
        }
