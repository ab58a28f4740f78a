-- What tests ask a running Neovim for.
local M = {}

---The ghost text that is shown, or an empty string.
function M.ghost()
  local ns = vim.api.nvim_create_namespace('nvim.lsp.inline_completion')
  local lines = {}
  for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })) do
    for _, chunks in ipairs({ mark[4].virt_text or {}, unpack(mark[4].virt_lines or {}) }) do
      lines[#lines + 1] = vim.iter(chunks):map(function(chunk) return chunk[1] end):join('')
    end
  end
  return table.concat(lines, '\n')
end

---How many servers have answered `initialize`.
function M.attached()
  return #vim.tbl_filter(function(client) return client.initialized end, vim.lsp.get_clients())
end

---@return string
function M.text()
  return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n')
end

_G.probe = M
