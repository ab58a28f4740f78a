"""LSP in, LSP out: the language server and its command line. Never imports torch."""
