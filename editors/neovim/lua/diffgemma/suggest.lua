--- Ghost text: Neovim asks for it and draws it; here are parts of it, candidates, and off and on.
local M = {}

local api = vim.api
local ghost = require('diffgemma.ghost')
local server = require('diffgemma.server')

---@param text string
local function insert(text)
  -- One undo takes back what was accepted, and not what was typed before.
  vim.bo.undolevels = vim.bo.undolevels
  -- Pasted and not put into the buffer: so `.` repeats it with what was typed.
  api.nvim_paste(text, false, -1)
end

--- Goes on showing the rest of an item of which a part was accepted. Without this it would be gone
--- until the server is asked again.
---@param item vim.lsp.inline_completion.Item
---@param rest string
local function keep(item, rest)
  local shown = ghost.of(api.nvim_get_current_buf())
  local client = vim.lsp.get_client_by_id(item.client_id)
  local state = shown and client and shown.client_state[item.client_id]
  if not (shown and client and state) then
    return
  end
  local here = vim.lsp.util.make_position_params(0, client.offset_encoding).position
  state.items = { { insertText = rest, range = { start = here, ['end'] = here } } }
  shown:select(1)
end

--- Accepts what `pick` takes of the suggestion that is shown.
---@param pick fun(rest: string): string
---@return boolean shown False if there is no suggestion: then the key can do what else it does.
local function accept(pick)
  local shown = ghost.of(api.nvim_get_current_buf())
  if shown and shown.current and ghost.is_over(shown.current, shown.bufnr) then
    shown.current = nil -- Neovim does not tell of each key where many are typed at once
    vim.schedule(function() shown:show() end)
    return false
  end
  return vim.lsp.inline_completion.get({
    on_accept = function(item)
      if ghost.is_special(item) then
        return item
      end
      local rest = ghost.rest_of(item)
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
  local shown = ghost.of(api.nvim_get_current_buf())
  if not shown then
    return vim.lsp.inline_completion.get({ on_accept = function() end })
  end
  local was_shown = shown.current ~= nil
  if was_shown then
    shown:abort() -- at once: what is asked for next is not to be cancelled with it
  end
  return was_shown
end

---@class diffgemma.Asking
---@field place table What it is asked for.
---@field step integer How far to go from what was shown; 0 is to the first.
---@field request integer? Its id, once it is sent.

local asking ---@type diffgemma.Asking?

--- Asks for all candidates, and shows the first, or the one that comes `step` after what is shown.
--- What is asked for at the same place meanwhile adds to that: the server answers only the last.
---@param bufnr integer
---@param step integer
local function ask(bufnr, step)
  local client, shown = server.client(bufnr), ghost.of(bufnr)
  if not (client and shown) then
    return server.notify('no suggestions here: see :Diffgemma status', vim.log.levels.WARN)
  end
  local function here()
    return { client.id, api.nvim_get_current_buf(), vim.b.changedtick, ghost.cursor() }
  end
  local place = here()
  local sent = asking and asking.request and client.requests[asking.request]
  if asking and sent and sent.type == 'pending' and vim.deep_equal(asking.place, place) then
    asking.step = asking.step + step
    return
  end
  local this, before = { place = place, step = step }, shown.current
  asking = this
  shown:reset_timer() -- what is asked while typing would be the last
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = vim.lsp.protocol.InlineCompletionTriggerKind.Invoked }
  local function answered(err, result, ctx)
    if asking ~= this then
      return
    end
    asking = nil
    if not vim.deep_equal(here(), place) then
      return
    end
    shown:handler(err, result, ctx)
    if not shown.current then
      return server.notify('no suggestion here: see :Diffgemma status')
    end
    local is_new = not (before and before.insert_text == shown.current.insert_text)
    shown:select(1, true)
    if this.step ~= 0 and not is_new and shown:count_items() == 1 then
      return shown:show(' (no other)')
    end
    local left = is_new and math.max(0, this.step - 1) or this.step
    vim.lsp.inline_completion.select({ bufnr = bufnr, count = left })
  end
  local _, id = client:request('textDocument/inlineCompletion', params, answered, bufnr)
  this.request = id
end

--- Asks for a suggestion now, with more time for it.
function M.ask() ask(api.nvim_get_current_buf(), 0) end

--- Shows another candidate. While one types there is only one, so the first time asks for all.
---@param step integer
function M.cycle(step)
  local bufnr = api.nvim_get_current_buf()
  local shown = ghost.of(bufnr)
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
  ghost.mend()
  -- Neovim asks at the next key only, and what was typed before the server came had none.
  local shown = ghost.of(bufnr)
  local inserting = vim.startswith(api.nvim_get_mode().mode, 'i')
  if shown and inserting and bufnr == api.nvim_get_current_buf() then
    shown:automatic_request()
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
