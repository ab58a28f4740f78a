--- Ghost text: Neovim asks for it and draws it; here are parts of it, candidates, and off and on.
local M = {}

local api = vim.api
local server = require('diffgemma.server')

--- What Neovim keeps of the ghost text in a buffer. It is not public, so whoever uses it does
--- without where it is nil.
---@param bufnr integer
---@return table?
local function ghost(bufnr)
  local ok, capability = pcall(require, 'vim.lsp._capability')
  local kind = ok and type(capability.all) == 'table' and capability.all.inline_completion
  return kind and type(kind.active) == 'table' and kind.active[bufnr] or nil
end

--- Row and column of the cursor as extmarks count them.
---@return integer row
---@return integer column
local function cursor()
  local row, column = unpack(api.nvim_win_get_cursor(0))
  return row - 1, column
end

--- What of an item is not in the buffer yet; nil if it does not go on from what is there.
---@param item vim.lsp.inline_completion.Item
---@return string?
local function rest_of(item)
  if not item.range then
    return item.insert_text --[[@as string]]
  end
  local start_row, start_column = item.range:to_extmark()
  local row, column = cursor()
  if row < start_row or row == start_row and column < start_column then
    return nil
  end
  local there = api.nvim_buf_get_text(0, start_row, start_column, row, column, {})
  local typed, text = table.concat(there, '\n'), item.insert_text --[[@as string]]
  return vim.startswith(text, typed) and text:sub(#typed + 1) or nil
end

--- Whether an item is more than a text that goes before what follows the cursor. Those of this
--- server are not.
---@param item vim.lsp.inline_completion.Item
local function is_special(item)
  if type(item.insert_text) ~= 'string' or item.command then
    return true
  end
  if not item.range then
    return false
  end
  local _, _, end_row, end_column = item.range:to_extmark()
  local row, column = cursor()
  return end_row > row or end_row == row and end_column > column
end

---@param text string
local function insert(text)
  -- One undo takes back what was accepted, and not what was typed before.
  vim.bo.undolevels = vim.bo.undolevels
  local lines = vim.split(text, '\n')
  local row, column = cursor()
  api.nvim_buf_set_text(0, row, column, row, column, lines)
  local start = #lines == 1 and column or 0
  api.nvim_win_set_cursor(0, { row + #lines, start + #lines[#lines] })
end

--- Goes on showing the rest of an item of which a part was accepted. Without this it would be gone
--- until the server is asked again.
---@param item vim.lsp.inline_completion.Item
---@param rest string
local function keep(item, rest)
  local shown = ghost(api.nvim_get_current_buf())
  local client = vim.lsp.get_client_by_id(item.client_id)
  local state = shown and client and shown.client_state[item.client_id]
  if not (shown and client and state) then
    return
  end
  local here = vim.lsp.util.make_position_params(0, client.offset_encoding).position
  state.items = { { insertText = rest, range = { start = here, ['end'] = here } } }
  shown:select(1)
end

--- Whether an item no longer goes on from what is in the buffer: something else was typed, or all
--- of it was. Of those of other servers, and where the cursor is elsewhere, nobody can say.
---@param item vim.lsp.inline_completion.Item
---@param bufnr integer
---@return boolean
local function is_over(item, bufnr)
  local client = vim.lsp.get_client_by_id(item.client_id)
  if not client or client.name ~= server.NAME or bufnr ~= api.nvim_get_current_buf() then
    return false
  end
  return not is_special(item) and (rest_of(item) or '') == ''
end

--- Neovim goes on showing a suggestion until the next answer comes, cut where the cursor is,
--- whatever was typed. It belongs hidden as soon as it does not go on from that.
---@param shown table What Neovim keeps of the ghost text in a buffer.
local function hide_what_is_over(shown)
  if rawget(shown, 'show') then
    return
  end
  local show = shown.show
  shown.show = function(self, hint)
    local item = self.current
    if item and is_over(item, self.bufnr) then
      self.current = nil
      self:hide()
      return
    end
    show(self, hint)
  end
end

--- Accepts what `pick` takes of the suggestion that is shown.
---@param pick fun(rest: string): string
---@return boolean shown False if there is no suggestion: then the key can do what else it does.
local function accept(pick)
  local shown = ghost(api.nvim_get_current_buf())
  if shown and shown.current and is_over(shown.current, shown.bufnr) then
    shown.current = nil -- Neovim does not tell of each key where many are typed at once
    vim.schedule(function() shown:show() end)
    return false
  end
  return vim.lsp.inline_completion.get({
    on_accept = function(item)
      if is_special(item) then
        return item
      end
      local rest = rest_of(item)
      if not rest then
        return nil -- something else was typed, and the new suggestion is on its way
      end
      local part = pick(rest)
      insert(part)
      if #part < #rest then
        keep(item, rest:sub(#part + 1))
      end
      return nil
    end,
  })
end

---@return boolean
function M.accept()
  return accept(function(rest) return rest end)
end

--- What a word is here: white space, and then either letters or signs.
local WORD = vim.regex([[^\_s*\%(\k\+\|\%(\%(\k\|\_s\)\@!.\)\+\)\?]])

---@return boolean
function M.accept_word()
  return accept(function(rest)
    local _, last = WORD:match_str(rest)
    return rest:sub(1, last)
  end)
end

--- Up to the end of the line; where that is reached already, the next one.
---@return boolean
function M.accept_line()
  return accept(function(rest) return rest:match('^\n*[^\n]+') or rest end)
end

--- Clears what is shown.
---@return boolean
function M.dismiss()
  return vim.lsp.inline_completion.get({ on_accept = function() end })
end

--- Asks for all candidates, and shows the first, or the one that comes `step` after what is shown.
---@param bufnr integer
---@param step? integer
local function ask(bufnr, step)
  local client, shown = server.client(bufnr), ghost(bufnr)
  if not (client and shown) then
    return server.notify('no suggestions here: see :Diffgemma status', vim.log.levels.WARN)
  end
  local before, changed = shown.current, api.nvim_buf_get_changedtick(bufnr)
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = vim.lsp.protocol.InlineCompletionTriggerKind.Invoked }
  client:request('textDocument/inlineCompletion', params, function(err, result, ctx)
    if changed ~= api.nvim_buf_get_changedtick(bufnr) then
      return
    end
    shown:handler(err, result, ctx)
    if not shown.current then
      return server.notify('no suggestion here: see :Diffgemma status')
    end
    local is_new = not (before and before.insert_text == shown.current.insert_text)
    shown:select(1, true)
    if step and not is_new then
      vim.lsp.inline_completion.select({ bufnr = bufnr, count = step })
    end
  end, bufnr)
end

--- Asks for a suggestion now, with more time for it.
function M.ask() ask(api.nvim_get_current_buf()) end

--- Shows another candidate. While one types there is only one, so the first time asks for all.
---@param step integer
function M.cycle(step)
  local bufnr = api.nvim_get_current_buf()
  local shown = ghost(bufnr)
  if shown and shown:count_items() <= 1 then
    ask(bufnr, step)
  else
    vim.lsp.inline_completion.select({ count = step })
  end
end

--- Whether there is ghost text in a buffer, if the server has any.
---@param bufnr? integer
---@return boolean
function M.is_on(bufnr) return vim.lsp.inline_completion.is_enabled({ bufnr = bufnr or 0 }) end

--- Has ghost text in a buffer of the server, unless it is not wanted: `vim.b.diffgemma_off` says so
--- for the buffer, else `vim.g.diffgemma_off` for all.
---@param bufnr integer
function M.attach(bufnr)
  local client = server.client(bufnr)
  if not (client and client:supports_method('textDocument/inlineCompletion', bufnr)) then
    return
  end
  local off = vim.F.if_nil(vim.b[bufnr].diffgemma_off, vim.g.diffgemma_off, false)
  vim.lsp.inline_completion.enable(not off, { bufnr = bufnr })
  local shown = ghost(bufnr)
  if shown then
    hide_what_is_over(shown)
  end
  if shown and not require('diffgemma.settings').get().automatic then
    -- In the place of Neovim's own, that asks by itself.
    shown.automatic_request = function(self) self:show() end
  end
end

--- Turns ghost text on or off in a buffer, or in all, for as long as Neovim runs.
---@param on boolean
---@param bufnr? integer nil is for all
function M.turn(on, bufnr)
  if bufnr then
    vim.b[bufnr].diffgemma_off = not on
  else
    vim.g.diffgemma_off = not on
    for _, one in ipairs(vim.api.nvim_list_bufs()) do
      vim.b[one].diffgemma_off = nil -- what was said of one buffer no longer counts
    end
  end
  for _, client in ipairs(vim.lsp.get_clients({ name = server.NAME })) do
    for attached in pairs(client.attached_buffers) do
      if attached == (bufnr or attached) then
        M.attach(attached)
      end
    end
  end
  vim.cmd.redrawstatus({ bang = true })
end

return M
