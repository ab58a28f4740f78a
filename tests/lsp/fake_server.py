"""The real server on standard input and output, with an engine that needs no model.

`test/report` tells what the engine was asked to do, and which modules are loaded.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from fake_engine import FakeEngine

from diffgemma_lsp.server import build_server, serve
from engine.types import Hole, Template

engine = FakeEngine(int(os.environ.get("FAKE_JITTER_MS", "0")), "FAKE_VARIED" in os.environ)
if loading_s := os.environ.get("FAKE_LOADING_S"):
    engine.loading_until = time.monotonic() + float(loading_s)
if "FAKE_LANGUAGES" in os.environ:
    engine.languages = tuple(os.environ["FAKE_LANGUAGES"].split(","))
server = build_server(lambda settings: engine)


@server.feature("test/report")
def report(params: Any) -> dict[str, Any]:
    return {
        "runs": engine.runs,
        "cancelled": engine.cancelled,
        "warmed_up": engine.warmed_up,
        "budgets": [request.budget_s for request in engine.requests],
        "seeds": [request.seed for request in engine.requests],
        "strengths": [_strength(request.template) for request in engine.requests],
        "modules": sorted(sys.modules),
        "texts": {uri: str(it.text) for uri, it in server.session.documents._open.items()},
    }


def _strength(template: Template) -> float | None:
    return next((part.strength for part in template if isinstance(part, Hole)), None)


if __name__ == "__main__":
    sys.exit(serve(server))
