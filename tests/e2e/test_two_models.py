"""Two models at the same time, in two engine services: real ones, over the real protocol."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "lsp"))

from lsp_client import INVOKED, LspClient, completion, did_open  # noqa: E402

pytestmark = pytest.mark.timeout(600)

SERVER = (sys.executable, "-m", "diffgemma_lsp")
OPTIONS = {"invoked_budget_ms": 300_000, "look_ahead": False, "warm_up": False, "model": "nano"}
TEXT = "def add(first, second):\n    return "


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Another model: nano's weights in a folder of its own, which knows Rust."""
    folder = tmp_path / "second"
    shutil.copytree(ROOT / "engine" / "weights" / "nano", folder)
    said = (folder / "infill.json").read_text(encoding="utf-8")
    (folder / "infill.json").write_text(said.replace('"python"', '"rust"'), encoding="utf-8")
    return folder


async def filled(client: LspClient, name: str, language: str) -> list[Any]:
    uri = f"file:///work/{name}"
    client.send(did_open(uri, TEXT, language=language))
    return await client.request(*completion(uri, 1, 11, INVOKED))


async def status(client: LspClient, name: str) -> dict[str, Any]:
    document = {"uri": f"file:///work/{name}"}
    return await client.request("diffgemma/status", {"textDocument": document})


async def test_two_services_answer_one_editor(own_engines: dict[str, str], second: Path) -> None:
    client = LspClient()
    await client.start(*SERVER, env=own_engines)
    await client.initialize(**OPTIONS, models={"rust": str(second)})
    assert await filled(client, "a.py", "python")
    assert await filled(client, "a.rs", "rust")
    python, rust = await status(client, "a.py"), await status(client, "a.rs")
    assert (python["model"], python["languages"]) == ("nano", ["python"])
    assert rust["languages"] == ["rust"], "it is the other one, which has the same name"
    assert python["state"] == rust["state"] == "ready"
    command = [sys.executable, "-m", "diffgemma_lsp", "engine", "status"]
    told = subprocess.run(command, env=own_engines, capture_output=True, text=True, check=True)
    assert told.stdout.count("ready") == 2, told.stdout
    assert client.shown == []
    assert await client.finish() == 0


async def test_a_model_that_is_not_there(own_engines: dict[str, str], tmp_path: Path) -> None:
    client = LspClient()
    await client.start(*SERVER, env=own_engines)
    absent = str(tmp_path / "absent")
    await client.initialize(**OPTIONS, models={"rust": absent})
    assert await filled(client, "a.rs", "rust")
    assert await filled(client, "b.rs", "rust")
    (told,) = [message["message"] for message in client.shown]
    assert told.startswith(f"diffgemma-lsp: {absent} (setting models): no model at {absent}")
    assert told.endswith("; nano answers instead")
    assert (await status(client, "a.rs"))["model"] == "nano"
    assert await client.finish() == 0
