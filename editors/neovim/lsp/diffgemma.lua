--- The language server for `vim.lsp.enable('diffgemma')`.
--- Override any of it with `vim.lsp.config('diffgemma', { ... })`.
---@type vim.lsp.Config
return {
  cmd = { 'diffgemma-lsp' },
  -- Those that mini suggests in by itself.
  filetypes = {
    'python',
    'javascript',
    'javascriptreact',
    'typescript',
    'typescriptreact',
    'java',
    'go',
    'rust',
    'c',
    'cpp',
    'css',
    'html',
    'yaml',
    'toml',
  },
  root_markers = { 'pyproject.toml', '.git' },
  capabilities = { experimental = { diffgemma = { frames = true, status = true } } },
  handlers = {
    ['window/showMessage'] = function(...) require('diffgemma.server').said(...) end,
    ['diffgemma/didChangeStatus'] = function(...) require('diffgemma.status').changed(...) end,
    ['diffgemma/frame'] = function(...) require('diffgemma.preview').frame(...) end,
  },
  before_init = function(...) require('diffgemma.server').starting(...) end,
  on_init = function(...) require('diffgemma.server').answered(...) end,
  on_exit = function(...) require('diffgemma.server').ended(...) end,
}
