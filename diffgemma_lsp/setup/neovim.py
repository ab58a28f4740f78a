"""Neovim: a file of its own that Neovim reads last, so that nobody's init.lua changes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from diffgemma_lsp.setup.edits import OwnFile, signature
from diffgemma_lsp.setup.place import Place, Setup, on_path, plugin

_SIGNATURE = signature("neovim", "--")

# The plugin is sourced by hand: Neovim looks for plugins before it reads this file. Tab keeps what
# it did where that is known, as Neovim's own mapping for snippets, and else is left alone.
_CONTENT = """\
local plugin = {plugin}
if vim.fn.isdirectory(plugin) == 0 then
  return
end
vim.opt.runtimepath:append(plugin)
dofile(plugin .. "/plugin/diffgemma.lua")
if vim.fn.has("nvim-0.12") == 0 then
  return
end

vim.lsp.config("diffgemma", {{ {config} }})
vim.lsp.enable("diffgemma")

local before = vim.fn.maparg("<Tab>", "i", false, true)
if vim.tbl_isempty(before) or (before.callback and before.replace_keycodes == 1) then
  vim.keymap.set("i", "<Tab>", function()
    if require("diffgemma").accept() then
      return
    elseif before.callback then
      return before.callback()
    end
    return "<Tab>"
  end, {{ expr = true, desc = "Accept the suggestion" }})
end
"""


def is_here(place: Place) -> bool:
    return on_path("nvim") or _folder(place).is_dir()


def setup(place: Place) -> Setup:
    """A file below after/plugin, which Neovim sources by itself."""
    config = f"cmd = {{ {_quoted(place.program)} }}"
    if place.other_model is not None:
        config += f", init_options = {{ model = {_quoted(place.other_model)} }}"
    content = _SIGNATURE + _CONTENT.format(plugin=_quoted(str(plugin())), config=config)
    return Setup(
        {_folder(place) / "after" / "plugin" / "diffgemma.lua": OwnFile(content, _SIGNATURE)},
        then=("Open a Python file, type, and accept with Tab. :help diffgemma has more.",),
    )


def _folder(place: Place) -> Path:
    return place.config / (os.environ.get("NVIM_APPNAME") or "nvim")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
