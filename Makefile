# All set up what they need in .venv first, and bring the base of mini among the user's data; only what
# tests and checks takes the development tools. PYTHON says with which Python.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready
TOOLS := .venv/.tools

VSCODE := editors/vscode
# Where there is no npm, that of the development tools makes the extension.
NODE := $(if $(shell command -v npm),,$(TOOLS))
NPM := PATH="$$PATH:$(CURDIR)/$(BIN)" npm

.PHONY: demo test lint format test-editors test-neovim test-terminal test-vscode vsix pictures clean

demo: $(READY)  ## watch it fill, rewrite, and fill several holes
	@$(BIN)/diffgemma-lsp demo

test: $(TOOLS)  ## all tests, by WORKERS processes
	@$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal $(PYTEST_ARGS)

lint: $(TOOLS)  ## style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/basedpyright

format: $(TOOLS)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/python tests/editors/stylua.py

test-neovim: $(TOOLS)  ## a real Neovim, fetched into .cache/editors if there is none, and its Lua
	@INSTALL_EDITORS=1 $(BIN)/pytest tests/editors/test_lua.py tests/editors/test_neovim*.py $(PYTEST_ARGS)

test-terminal: $(TOOLS)  ## what runs in a terminal: Neovim, its Lua, Emacs and Helix
	@INSTALL_EDITORS=1 $(BIN)/pytest tests/editors --ignore=tests/editors/vscode $(PYTEST_ARGS)

test-editors: $(TOOLS)  ## every editor: real ones, installed in .cache/editors
	@INSTALL_EDITORS=1 $(BIN)/pytest tests/editors $(PYTEST_ARGS)

test-vscode: $(TOOLS)  ## a real VS Code in a browser
	@INSTALL_EDITORS=1 $(BIN)/pytest tests/editors/vscode $(PYTEST_ARGS)

vsix: $(VSCODE)/node_modules  ## the extension for VS Code, as editors/vscode/dist/*.vsix
	@cd $(VSCODE) && $(NPM) run --silent check && $(NPM) run --silent package

$(VSCODE)/node_modules: $(VSCODE)/package-lock.json | $(NODE)
	@cd $(VSCODE) && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

pictures: $(TOOLS)  ## the README's pictures, made anew with a real fill and real editors
	@$(BIN)/python tests/editors/pictures.py
	@INSTALL_EDITORS=1 PICTURES=1 $(BIN)/pytest tests/editors/vscode -k nano

clean:
	rm -rf $(VSCODE)/node_modules $(VSCODE)/dist .venv .cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml .ci/setup.py
	@$(PYTHON) .ci/setup.py
	@touch $@

$(TOOLS): pyproject.toml .ci/setup.py
	@$(PYTHON) .ci/setup.py dev
	@touch $@ $(READY)
