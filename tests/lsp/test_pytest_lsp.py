"""A smoke test with a client of another make: pytest-lsp, that is pygls's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_lsp
from fake_engine import filling
from lsp_client import FAKE_SERVER, ROOT
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities

URI = "file:///work/a.py"


@pytest_lsp.fixture(
    config=ClientServerConfig(
        server_command=list(FAKE_SERVER), server_env={"PYTHONPATH": str(ROOT)}
    ),
)
async def client(lsp_client: LanguageClient) -> AsyncIterator[None]:
    @lsp_client.feature(types.CLIENT_REGISTER_CAPABILITY)
    def _(params: types.RegistrationParams) -> None:
        pass

    lsp_client.set_configuration(["sql"], section="diffgemma.languagesOff")
    params = types.InitializeParams(capabilities=client_capabilities("visual-studio-code"))
    await lsp_client.initialize_session(params)
    yield
    await lsp_client.shutdown_session()


async def test_ghost_text(client: LanguageClient) -> None:
    item = types.TextDocumentItem(URI, "python", 1, "x = \n")
    client.text_document_did_open(types.DidOpenTextDocumentParams(item))
    insertion = types.TextDocumentContentChangePartial(
        range=types.Range(types.Position(0, 4), types.Position(0, 4)), text="'😀' + "
    )
    client.text_document_did_change(
        types.DidChangeTextDocumentParams(
            types.VersionedTextDocumentIdentifier(2, URI), [insertion]
        )
    )
    cursor = types.Position(0, 4 + 7)
    items = await client.text_document_inline_completion_async(
        types.InlineCompletionParams(
            types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            types.TextDocumentIdentifier(URI),
            cursor,
        )
    )
    text = filling("x = '😀' + ", "\n")
    assert items == [types.InlineCompletionItem(text, range=types.Range(cursor, cursor))]


async def test_the_clients_settings(client: LanguageClient) -> None:
    """Asked for after the handshake, and waited for: of two documents one is off."""
    context = types.InlineCompletionContext(types.InlineCompletionTriggerKind.Invoked)
    shown: dict[str, bool] = {}
    for language in ("sql", "python"):
        uri = f"file:///work/a.{language}"
        item = types.TextDocumentItem(uri, language, 1, "x = \n")
        client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        params = types.InlineCompletionParams(
            context, types.TextDocumentIdentifier(uri), types.Position(0, 4)
        )
        shown[language] = bool(await client.text_document_inline_completion_async(params))
    assert shown == {"sql": False, "python": True}
