"""What can be set up, in the order in which it is offered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffgemma_lsp.setup import clients, emacs, helix, neovim, service, vscode
from diffgemma_lsp.setup.place import Place, Setup


@dataclass(frozen=True)
class Editor:
    """name: on the command line. is_here: whether it seems to be in use on this machine.

    has_model: whether its configuration can name a model.
    """

    name: str
    title: str
    is_here: Callable[[Place], bool]
    setup: Callable[[Place], Setup]
    has_model: bool = True


EDITORS = (
    Editor("vscode", "VS Code", vscode.is_here, vscode.setup),
    Editor("neovim", "Neovim", neovim.is_here, neovim.setup),
    Editor("helix", "Helix", helix.is_here, helix.setup),
    Editor("emacs", "Emacs", emacs.is_here, emacs.setup),
    Editor("llama.vim", "llama.vim", clients.llama_vim_is_here, clients.llama_vim, False),
    Editor("zed", "Zed", clients.zed_is_here, clients.zed, False),
    Editor("continue", "Continue", clients.continue_is_here, clients.continue_dev, False),
    Editor("service", "serve as a service", service.is_here, service.setup),
)

BY_NAME = {editor.name: editor for editor in EDITORS}
