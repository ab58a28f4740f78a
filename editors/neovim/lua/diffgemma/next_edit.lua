--- Next edits: what must follow the last edits of a buffer is asked for after each, shown at its
--- place, jumped to, and accepted or refused.
local M = {}

local api = vim.api
local server = require('diffgemma.server')

local METHOD = 'textDocument/copilotInlineEdit'
local REFUSE = 'diffgemma/refuseNextEdit'
local namespace = api.nvim_create_namespace('diffgemma.next_edit')

--- So long after a change the server is asked: whoever goes on typing needs no answer.
local REST_MS = 100

---@class diffgemma.NextEdit
---@field bufnr integer
---@field changedtick integer Of the buffer for which it holds.
---@field encoding 'utf-8'|'utf-16'|'utf-32'
---@field edit lsp.TextEdit
---@field answered table As the server gave it.

local shown ---@type diffgemma.NextEdit?
local cancel = function() end

--- The changedtick of the buffers for which there is no answer yet, or one that got lost.
local due = {} ---@type table<integer, integer>

require('diffgemma.draw') -- which knows the colours

--- Clears what is shown.
function M.clear()
  if shown and api.nvim_buf_is_valid(shown.bufnr) then
    api.nvim_buf_clear_namespace(shown.bufnr, namespace, 0, -1)
  end
  shown = nil
end

---@param next_edit diffgemma.NextEdit
local function show(next_edit)
  M.clear()
  shown = next_edit
  local line = next_edit.edit.range.start.line
  local text = next_edit.edit.newText:gsub('\t', (' '):rep(vim.bo[next_edit.bufnr].tabstop))
  api.nvim_buf_set_extmark(next_edit.bufnr, namespace, line, 0, {
    line_hl_group = 'DiffgemmaOld',
    virt_lines = { { { text, 'DiffgemmaNew' } } },
  })
  if line + 1 < vim.fn.line('w0') or line + 1 > vim.fn.line('w$') then
    api.nvim_buf_set_extmark(next_edit.bufnr, namespace, vim.fn.line('.') - 1, 0, {
      virt_text = { { ('next edit: line %d'):format(line + 1), 'DiffgemmaHint' } },
    })
  end
end

---@param bufnr integer
local function ask(bufnr)
  local client = server.client(bufnr)
  if not client or bufnr ~= api.nvim_get_current_buf() then
    return
  end
  local changedtick = api.nvim_buf_get_changedtick(bufnr)
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.textDocument.version = vim.lsp.util.buf_versions[bufnr]
  local sent, id = client:request(METHOD, params, function(err, result)
    local current = bufnr == api.nvim_get_current_buf() and api.nvim_get_mode().mode == 'n'
    if err or not current or changedtick ~= api.nvim_buf_get_changedtick(bufnr) then
      return
    end
    due[bufnr] = nil
    local found = result.edits[1]
    if found then
      show({
        bufnr = bufnr,
        changedtick = changedtick,
        encoding = client.offset_encoding,
        edit = { range = found.range, newText = found.text },
        answered = found,
      })
    end
  end, bufnr)
  cancel = function()
    if sent and id then
      client:cancel_request(id)
    end
  end
end

--- Asks when the buffer has come to rest, unless there is an answer by then. Where somebody does
--- something else meanwhile, it is asked when they are back.
---@param bufnr integer
local function ask_soon(bufnr)
  local tick = due[bufnr]
  vim.defer_fn(function()
    local waits = tick and tick == due[bufnr] and api.nvim_buf_is_valid(bufnr)
    local same = waits and tick == api.nvim_buf_get_changedtick(bufnr)
    if same and api.nvim_get_mode().mode == 'n' then
      ask(bufnr)
    end
  end, REST_MS)
end

--- What is shown no longer holds, and what is asked for is not waited for.
local function leave()
  M.clear()
  cancel()
  cancel = function() end
end

--- The buffer was changed, or left in Insert mode.
---@param bufnr integer
local function changed(bufnr)
  leave()
  due[bufnr] = api.nvim_buf_get_changedtick(bufnr)
  ask_soon(bufnr)
end

--- Asks after each edit of a buffer of the server, unless it is not wanted.
---@param bufnr integer
function M.attach(bufnr)
  if not require('diffgemma.settings').get().next_edits then
    return
  end
  local group = api.nvim_create_augroup('diffgemma.next_edit.' .. bufnr, {})
  api.nvim_create_autocmd({ 'TextChanged', 'InsertLeave' }, {
    group = group,
    buffer = bufnr,
    callback = function() changed(bufnr) end,
  })
  api.nvim_create_autocmd({ 'InsertEnter', 'BufLeave' }, {
    group = group,
    buffer = bufnr,
    callback = function()
      if shown and shown.bufnr == bufnr then
        due[bufnr] = shown.changedtick
      end
      leave()
    end,
  })
  api.nvim_create_autocmd('BufEnter', {
    group = group,
    buffer = bufnr,
    callback = function() ask_soon(bufnr) end,
  })
  api.nvim_create_autocmd('ModeChanged', {
    group = group,
    pattern = '*:n',
    callback = function()
      if bufnr == api.nvim_get_current_buf() then
        ask_soon(bufnr)
      end
    end,
  })
end

--- The next edit that is shown in the current buffer.
---@return diffgemma.NextEdit?
local function current()
  local holds = shown
    and shown.bufnr == api.nvim_get_current_buf()
    and shown.changedtick == api.nvim_buf_get_changedtick(shown.bufnr)
  return holds and shown or nil
end

--- Jumps to the next edit that is shown, and accepts it where the cursor is in its line already.
---@return boolean shown False if there is none: then the key can do what else it does.
function M.go()
  local this = current()
  if not this then
    return false
  end
  local line = this.edit.range.start.line + 1
  if api.nvim_win_get_cursor(0)[1] ~= line then
    vim.cmd("normal! m'") -- so that CTRL-O leads back
    api.nvim_win_set_cursor(0, { line, 0 })
    vim.cmd('normal! ^')
    return true
  end
  M.clear()
  vim.lsp.util.apply_text_edits({ this.edit }, this.bufnr, this.encoding)
  return true
end

--- Refuses the next edit that is shown, and goes on to the next place.
---@return boolean shown False if there is none.
function M.refuse()
  local this = current()
  local client = this and server.client(this.bufnr)
  if not (this and client) then
    return false
  end
  M.clear()
  client:notify(REFUSE, this.answered)
  ask(this.bufnr)
  return true
end

return M
