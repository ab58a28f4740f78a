--- The ghost text as Neovim keeps it: whether it still fits, and hidden as soon as it does not.
local M = {}

local api = vim.api
local server = require('diffgemma.server')

--- What Neovim has the ghost text of all buffers from: its class. It is not public, so whoever uses
--- it does without where it is nil.
---@return table?
local function class()
  local ok, capability = pcall(require, 'vim.lsp._capability')
  return ok and type(capability.all) == 'table' and capability.all.inline_completion or nil
end

--- What Neovim keeps of the ghost text in a buffer.
---@param bufnr integer
---@return table?
function M.of(bufnr)
  local kind = class()
  return kind and type(kind.active) == 'table' and kind.active[bufnr] or nil
end

---@param item vim.lsp.inline_completion.Item
---@return boolean
local function is_ours(item)
  local client = vim.lsp.get_client_by_id(item.client_id)
  return client ~= nil and client.name == server.NAME
end

--- Row and column of the cursor as extmarks count them.
---@return integer row
---@return integer column
function M.cursor()
  local row, column = unpack(api.nvim_win_get_cursor(0))
  return row - 1, column
end

--- What of an item is not in the buffer yet; nil if it does not go on from what is there.
---@param item vim.lsp.inline_completion.Item
---@return string?
function M.rest_of(item)
  if not item.range then
    return item.insert_text --[[@as string]]
  end
  local start_row, start_column = item.range:to_extmark()
  local row, column = M.cursor()
  local first = api.nvim_buf_get_lines(0, start_row, start_row + 1, false)[1] or ''
  if row < start_row or row == start_row and column < start_column or #first < start_column then
    return nil
  end
  local there = api.nvim_buf_get_text(0, start_row, start_column, row, column, {})
  local typed, text = table.concat(there, '\n'), item.insert_text --[[@as string]]
  return vim.startswith(text, typed) and text:sub(#typed + 1) or nil
end

--- Whether an item is more than a text that goes before what follows the cursor. Those of this
--- server are not.
---@param item vim.lsp.inline_completion.Item
function M.is_special(item)
  if type(item.insert_text) ~= 'string' or item.command then
    return true
  end
  if not item.range or is_ours(item) then
    return false -- the cursor may have left its range since
  end
  local _, _, end_row, end_column = item.range:to_extmark()
  local row, column = M.cursor()
  return end_row > row or end_row == row and end_column > column
end

--- Whether an item no longer goes on from what is before the cursor: something else was typed, or
--- all of it was, or the cursor is elsewhere. Of those of other servers nobody can say.
---@param item vim.lsp.inline_completion.Item
---@param bufnr integer
---@return boolean
function M.is_over(item, bufnr)
  if bufnr ~= api.nvim_get_current_buf() or not is_ours(item) or M.is_special(item) then
    return false
  end
  return (M.rest_of(item) or '') == ''
end

local is_mended = false

--- Mends Neovim's own, for each buffer of the server: those that come, too.
function M.mend()
  local kind = class()
  if is_mended or not kind then
    return
  end
  is_mended = true
  -- Neovim goes on showing a suggestion until the next answer comes, cut where the cursor is,
  -- whatever was typed. It belongs hidden as soon as it does not go on from that.
  local show, automatic_request = kind.show, kind.automatic_request
  function kind:show(hint)
    if self.current and M.is_over(self.current, self.bufnr) then
      self.current = nil
    end
    show(self, hint)
  end
  function kind:automatic_request()
    if server.client(self.bufnr) and not require('diffgemma.settings').get().automatic then
      return self:show()
    end
    automatic_request(self)
  end
  -- Neovim clears it at InsertLeave, which does not come of CTRL-C.
  api.nvim_create_autocmd('ModeChanged', {
    group = api.nvim_create_augroup('diffgemma.suggest', {}),
    pattern = 'i*:[^i]*',
    callback = function(args)
      local shown = M.of(args.buf)
      if shown and server.client(args.buf) then
        shown:abort()
      end
    end,
  })
end

return M
