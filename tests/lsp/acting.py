"""How tests ask for actions and commands, and what becomes of their document."""

from __future__ import annotations

from typing import Any

from applying import applied
from in_process import InProcessClient
from lsp_client import span

URI = "file:///work/a.py"

RESOLVES = {
    "textDocument": {
        "codeAction": {
            "codeActionLiteralSupport": {"codeActionKind": {"valueSet": [""]}},
            "dataSupport": True,
            "resolveSupport": {"properties": ["edit"]},
        }
    },
    "workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}},
}
FRAMES = {"experimental": {"diffgemma": {"frames": True}}}

CODE = '''\
# fake: {"text": "value + 1"}
def area(width, height):
    """Area."""
    return width * height


def later(count):
    ...
'''


def asking(where: dict[str, Any], **context: Any) -> tuple[str, dict[str, Any]]:
    """The request for what can be done at a range."""
    return "textDocument/codeAction", {
        "textDocument": {"uri": URI},
        "range": where,
        "context": {"diagnostics": [], **context},
    }


async def titles(client: InProcessClient, where: dict[str, Any], **context: Any) -> list[str]:
    """What is offered at a range."""
    return [action["title"] for action in await client.request(*asking(where, **context))]


async def resolved(client: InProcessClient, where: dict[str, Any], title: str) -> dict[str, Any]:
    """The action of this name at a range, chosen."""
    actions = await client.request(*asking(where))
    (action,) = [action for action in actions if action["title"] == title]
    return await client.request("codeAction/resolve", action)


def order(**more: Any) -> dict[str, Any]:
    """The argument of a command, by default about an expression of CODE."""
    return {"textDocument": {"uri": URI}, "range": span(3, 11, 3, 25), **more}


async def execute(client: InProcessClient, name: str, *arguments: Any, **more: Any) -> Any:
    """The result of a command."""
    params = {"command": f"diffgemma.{name}", "arguments": list(arguments), **more}
    return await client.request("workspace/executeCommand", params)


def after(text: str, edit: dict[str, Any], version: int | None = 1) -> str:
    """The text of the document after the edit."""
    return applied(text, URI, edit, version)
