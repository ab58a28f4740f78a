"""`python -m diffgemma_lsp` is the same as `diffgemma-lsp`."""

import sys

from diffgemma_lsp.cli import main

if __name__ == "__main__":
    sys.exit(main())
