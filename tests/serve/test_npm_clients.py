"""Real clients from npm in front of `diffgemma-lsp serve`: Continue's adapters and Tabby's agent.

They are fetched into `.cache/clients`, 120 MB, as they were on one day; where the registry of npm
can't be reached, the tests are skipped."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from install import CannotInstall
from lsp_client import LspClient, did_open, position
from npm_packages import CLIENTS, NODE, installed
from serving import AFTER, BEFORE, PATIENCE_S, configured

pytestmark = pytest.mark.timeout(600)

DAY = "2026-11-28"
ADAPTERS, AGENT = "@continuedev/openai-adapters@1.37.0", "tabby-agent@1.5.0"
MARKED = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"
HOLE = {"prompt": BEFORE, "suffix": AFTER}


def client(folder: str, package: str) -> Path:
    try:
        return installed(CLIENTS / folder, package, DAY)
    except CannotInstall as error:
        pytest.skip(f"{package}: {error}")


@pytest.fixture(scope="module")
def adapters() -> Path:
    return client("continue", ADAPTERS)


@pytest.fixture(scope="module")
def agent() -> Path:
    return client("tabby-agent", AGENT)


def continued(adapters: Path, model: dict[str, Any], function: str, body: dict[str, Any]) -> str:
    """What Continue's adapter for that model gets."""
    configuration = {"apiKey": "none", **model}
    asked = {"model": model["model"], "max_tokens": 32, "stream": True, **body}
    module = (adapters / "dist" / "index.js").as_uri()
    arguments = [module, json.dumps(configuration), function, json.dumps(asked)]
    done = subprocess.run(
        [NODE, Path(__file__).with_name("continue.mjs"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_continue_as_the_readme_says(adapters: Path, url: str, answer: str) -> None:
    (model,) = yaml.safe_load(configured("Continue", url))
    assert "autocomplete" in model["roles"]
    assert continued(adapters, model, "fimStream", HOLE) == answer


@pytest.mark.parametrize(
    ("provider", "base", "function", "body"),
    [
        ("inception", "/v1/", "fimStream", HOLE),
        ("deepseek", "/v1/", "fimStream", HOLE),
        ("deepseek", "/", "fimStream", HOLE),
        ("openai", "/v1/", "completionStream", {"prompt": MARKED}),
        ("lmstudio", "/v1/", "completionStream", {"prompt": MARKED}),
        ("llama.cpp", "/v1/", "completionStream", {"prompt": MARKED}),
    ],
)
def test_continue_s_other_providers(
    adapters: Path,
    url: str,
    answer: str,
    provider: str,
    base: str,
    function: str,
    body: dict[str, Any],
) -> None:
    model = {"provider": provider, "model": "nano", "apiBase": f"{url}{base}"}
    assert continued(adapters, model, function, body) == answer


async def test_tabby_s_agent_as_the_readme_says(agent: Path, url: str, tmp_path: Path) -> None:
    """Its language server, whose completions come from ours."""
    config = tmp_path / ".tabby-client" / "agent" / "config.toml"
    config.parent.mkdir(parents=True)
    quiet = "[anonymousUsageTracking]\ndisable = true\n"
    config.write_text(configured("Tabby's clients", url) + "\n" + quiet)
    segments = {"language": "python", "segments": {"prefix": BEFORE, "suffix": AFTER}}
    given = httpx.post(f"{url}/v1/completions", json=segments, timeout=PATIENCE_S).json()

    editor = LspClient()
    cli = agent / "dist" / "cli.js"
    await editor.start(str(NODE), str(cli), "--lsp", "--stdio", env={"HOME": str(tmp_path)})
    await editor.initialize()
    editor.send(did_open("file:///add.py", BEFORE + AFTER))
    asked = {"textDocument": {"uri": "file:///add.py"}, "position": position(1, 11)}
    (item,) = (await editor.request("textDocument/completion", asked))["items"]
    assert item["textEdit"]["newText"] == given["choices"][0]["text"]
    assert item["textEdit"]["range"]["start"] == position(1, 11)
    assert await editor.finish() == 0
