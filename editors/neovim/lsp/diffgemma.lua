--- The language server for `vim.lsp.enable('diffgemma')`, with ghost text in each buffer.
--- Override any of it with `vim.lsp.config('diffgemma', { ... })`.
---@type vim.lsp.Config
return {
  cmd = { 'diffgemma-lsp' },
  filetypes = { 'python' },
  root_markers = { 'pyproject.toml', '.git' },
  on_attach = function(client, bufnr)
    if client:supports_method('textDocument/inlineCompletion', bufnr) then
      vim.lsp.inline_completion.enable(true, { bufnr = bufnr })
    end
  end,
}
