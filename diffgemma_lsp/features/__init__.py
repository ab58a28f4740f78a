"""One file per LSP method: the handler on top, what it needs below it."""
