--- The language server for `vim.lsp.enable('diffgemma')`.
--- Override any of it with `vim.lsp.config('diffgemma', { ... })`.
---@type vim.lsp.Config
return {
  cmd = { 'diffgemma-lsp' },
  filetypes = { 'python' },
  root_markers = { 'pyproject.toml', '.git' },
  capabilities = { experimental = { diffgemma = { frames = true, status = true } } },
  handlers = {
    ['diffgemma/didChangeStatus'] = function(...) require('diffgemma.status').changed(...) end,
    ['diffgemma/frame'] = function(...) require('diffgemma.preview').frame(...) end,
  },
  before_init = function(...) require('diffgemma.server').starting(...) end,
  on_init = function(...) require('diffgemma.server').answered(...) end,
  on_exit = function(...) require('diffgemma.server').ended(...) end,
}
