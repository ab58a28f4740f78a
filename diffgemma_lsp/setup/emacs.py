"""Emacs: a block at the end of the file that it begins with, for lsp-mode or else for eglot."""

from __future__ import annotations

import json
from pathlib import Path

from diffgemma_lsp.setup.edits import Block
from diffgemma_lsp.setup.place import Place, Setup, on_path

# lsp-mode runs several servers for a buffer and shows ghost text from version 10 on.
_LINES = """\
(if (locate-library "lsp-inline-completion")
    (progn
      (with-eval-after-load 'lsp-mode
        (require 'lsp-inline-completion)
        (lsp-register-client
         (make-lsp-client :new-connection (lsp-stdio-connection '({program}))
                          :activation-fn (lsp-activate-on
                                          "python" "javascript" "javascriptreact" "typescript"
                                          "typescriptreact" "java" "go" "rust" "c" "cpp" "css"
                                          "html" "yaml" "toml")
                          :add-on? t{lsp_mode}
                          :server-id 'diffgemma))
        (setq lsp-inline-completion-idle-delay 0.2)
        (define-key lsp-inline-completion-active-map (kbd "TAB") #'lsp-inline-completion-accept)
        (add-hook 'lsp-after-open-hook #'lsp-inline-completion-mode))
      (autoload 'lsp-deferred "lsp-mode" nil t)
      (add-hook 'python-mode-hook #'lsp-deferred)
      (add-hook 'python-ts-mode-hook #'lsp-deferred))
  (with-eval-after-load 'eglot
    (add-to-list 'eglot-server-programs
                 '((python-mode python-ts-mode) . ({program}{eglot}))))
  (add-hook 'python-mode-hook #'eglot-ensure)
  (add-hook 'python-ts-mode-hook #'eglot-ensure))
"""


def is_here(place: Place) -> bool:
    return on_path("emacs") or any(path.exists() for path in _known(place))


def setup(place: Place) -> Setup:
    model = "" if place.other_model is None else f"(:model {_quoted(place.other_model)})"
    lines = _LINES.format(
        program=_quoted(place.program),
        lsp_mode=model and f"\n                          :initialization-options '{model}",
        eglot=model and f" :initializationOptions {model}",
    )
    return Setup(
        {_file(place): Block(";;", lambda _: lines)},
        then=(
            "Without lsp-mode 10 it is eglot's server for Python, in the place of another, and has "
            "no ghost text: M-x completion-at-point.",
        ),
    )


def _file(place: Place) -> Path:
    """What Emacs reads: the first that is there, or the one that it would find first."""
    *files, of_folder, of_config = _known(place)
    found = [path for path in (*files, of_folder, of_config) if path.exists()]
    if found:
        return found[0]
    in_config = of_config.parent.is_dir() and not of_folder.parent.is_dir()
    return of_config if in_config else of_folder


def _known(place: Place) -> tuple[Path, ...]:
    home = place.home
    init = "init.el"
    return (
        home / ".emacs.el",
        home / ".emacs",
        home / ".emacs.d" / init,
        place.config / "emacs" / init,
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
