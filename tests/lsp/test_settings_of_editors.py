"""How each editor says its settings, as its own source has it."""

from __future__ import annotations

from test_configuration import connected, holding, push

from diffgemma_lsp.settings.schema import Settings


async def test_vs_code() -> None:
    """It answers with all that package.json knows, null where nothing is set; null pushes."""
    section = {
        "enable": True,
        "maxTokens": 16,
        "model": None,
        "device": None,
        "idleUnloadS": 900,
        "languages": {"markdown": {"enable": False}},
        "globs": {},
        "trace": {"server": "off"},
    }
    client = await connected(
        pull=lambda params: [None if "scopeUri" in item else section for item in params["items"]],
        registers=True,
        folders=["file:///work"],
        model="/m",
    )
    await push(client, {})  # at the registration
    await push(client, None)
    assert holding(client) == Settings(model="/m", max_tokens=16)
    assert not client.server.session.settings.for_document("file:///work/a.md", "markdown").enable
    assert client.shown == client.unexpected == []


async def test_neovim() -> None:
    """It pushes its `settings` at once and answers out of them; an empty table is a list."""
    client = await connected(pull=lambda params: [{"seed": 3, "languages": []}])
    await push(client, {"diffgemma": {"seed": 3, "languages": []}})
    assert holding(client) == Settings(seed=3)
    client = await connected(pull=lambda params: [None])
    await push(client, [])
    assert holding(client) == Settings()
    assert client.shown == client.unexpected == []


async def test_helix() -> None:
    """`config` is the initializationOptions, is pushed bare, and has no section of our name."""
    config = {"model": "/m", "max_lines": 2, "globs": {"*.md": {"enable": False}}}
    client = await connected(pull=lambda params: [None for _ in params["items"]], **config)
    await push(client, config)
    assert holding(client) == Settings(model="/m", max_lines=2)
    assert client.shown == client.unexpected == []


async def test_eglot() -> None:
    """It pushes what is for all servers."""
    client = await connected(pull=lambda params: [None])
    await push(client, {"pylsp": {"plugins": {"jedi": {"enabled": True}}}, "gopls": {}})
    assert holding(client) == Settings()
    await push(client, {"pylsp": {}, "diffgemma": {"seed": 3}})
    assert holding(client) == Settings(seed=3)
    assert client.shown == client.unexpected == []
