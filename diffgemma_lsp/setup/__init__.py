"""An editor's configuration, as `diffgemma-lsp setup` writes it and takes it back.

An editor is an entry of `editors.EDITORS`: which files, and the edit that each of them gets. An
edit is a pure function of a text, there and back; nothing is written but by `change.py`.
"""
