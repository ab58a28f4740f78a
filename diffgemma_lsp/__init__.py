"""LSP in, LSP out: the language server and its command line. Never imports torch."""

from pathlib import Path

import engine

# A name that others may have, too. Ours lies beside this package, installed or not.
if Path(__file__).parents[1] not in [Path(one).parent for one in engine.__path__]:
    raise ImportError(
        f"the package `engine` in {list(engine.__path__)} is not that of diffgemma-lsp: "
        "install diffgemma-lsp in an environment of its own"
    )
