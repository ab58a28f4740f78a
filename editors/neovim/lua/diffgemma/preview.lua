--- A run that is shown before it changes the buffer: as it settles, and then as a difference with
--- keys to accept it, discard it, or try again.
local M = {}

local api = vim.api
local draw = require('diffgemma.draw')
local server = require('diffgemma.server')

--- How much `more` and `less` change the strength.
local STEP = 0.2

---@class diffgemma.Preview
---@field client vim.lsp.Client
---@field bufnr integer
---@field token string Names its frames; each run has another.
---@field request integer? The run that is under way.
---@field order table The argument of the command.
---@field action string
---@field result table? Of the last run, once that is over.
---@field drawn boolean Whether there was a frame.
---@field echoed boolean Whether its hint is said below the window, too.
---@field keys table<diffgemma.PreviewKey, string>
---@field saved table[] Mappings that its keys stand before.

local shown = {} ---@type table<integer, diffgemma.Preview>
local runs = 0

local group = api.nvim_create_augroup('diffgemma.preview', {})

---@type table<diffgemma.PreviewKey, fun(preview: diffgemma.Preview)>
local does = {}

---@param preview diffgemma.Preview
local function set_keys(preview)
  for name, key in pairs(preview.keys) do
    local before = vim.fn.maparg(key, 'n', false, true)
    if before.buffer == 1 then
      table.insert(preview.saved, before)
    end
    vim.keymap.set('n', key, function() does[name](preview) end, {
      buffer = preview.bufnr,
      nowait = true,
      desc = 'diffgemma: ' .. name,
    })
  end
end

---@param preview diffgemma.Preview
local function restore_keys(preview)
  if not api.nvim_buf_is_valid(preview.bufnr) then
    return
  end
  for _, key in pairs(preview.keys) do
    pcall(vim.keymap.del, 'n', key, { buffer = preview.bufnr })
  end
  api.nvim_buf_call(preview.bufnr, function()
    for _, before in ipairs(preview.saved) do
      vim.fn.mapset('n', false, before)
    end
  end)
end

--- Scrolls as far as it takes to see what is drawn below a line, but never past the cursor.
---@param line integer From 0.
---@param rows integer
local function bring_into_sight(line, rows)
  local view = vim.fn.winsaveview()
  local filled = api.nvim_win_text_height(0, { start_row = view.topline - 1, end_row = line })
  local missing = filled.all + rows - api.nvim_win_get_height(0)
  local room = vim.fn.line('.') - vim.o.scrolloff - view.topline
  if missing > 0 and room > 0 then
    view.topline = view.topline + math.min(missing, room)
    vim.fn.winrestview(view)
  end
end

---@param preview diffgemma.Preview
---@param changes diffgemma.Change[]
---@param hint string With the names of keys in braces.
local function show(preview, changes, hint)
  hint = '  ' .. hint:gsub('{(%l+)}', preview.keys)
  local line, rows = draw.show(preview.bufnr, changes, hint, preview.order.range['end'].line)
  if api.nvim_get_current_buf() ~= preview.bufnr then
    return
  end
  bring_into_sight(line, rows)
  vim.cmd.redraw()
  preview.echoed = preview.echoed or vim.fn.line('w$') <= line + 1
  if preview.echoed then
    api.nvim_echo({ { vim.trim(hint), 'DiffgemmaHint' } }, false, {}) -- it may be out of sight
  end
end

---@param preview diffgemma.Preview
---@return boolean
local function is_current(preview)
  local version = vim.lsp.util.buf_versions[preview.bufnr]
  return shown[preview.bufnr] == preview and version == preview.order.textDocument.version
end

--- Ends the preview of a buffer, if there is one; nothing has changed.
---@param bufnr integer
function M.close(bufnr)
  local preview = shown[bufnr]
  if not preview then
    return
  end
  shown[bufnr] = nil
  if preview.request then
    preview.client:cancel_request(preview.request)
  end
  api.nvim_clear_autocmds({ group = group, buffer = bufnr })
  draw.clear(bufnr)
  if preview.echoed then
    vim.cmd.redraw({ bang = true }) -- what was drawn below the last line in sight would stay
    api.nvim_echo({ { '' } }, false, {})
  end
  restore_keys(preview)
end

--- `diffgemma/frame`.
---@param frame table
function M.frame(_, frame)
  for _, preview in pairs(shown) do
    if preview.token == frame.token and preview.request and is_current(preview) then
      local encoding = preview.client.offset_encoding
      local changes = vim.tbl_map(function(hole)
        local chunks = { { hole.before, 'DiffgemmaSure' } }
        for _, piece in ipairs(hole.pieces) do
          chunks[#chunks + 1] = { piece[1], draw.tint(piece[2]) }
        end
        chunks[#chunks + 1] = { hole.after, 'DiffgemmaSure' }
        return draw.change(preview.bufnr, hole.range, encoding, chunks)
      end, frame.holes)
      preview.drawn = true
      -- The first one, before any pass, is the draft.
      local pass = ('pass %d of %d'):format(frame.step, frame.planned)
      show(preview, changes, (frame.step == 0 and 'starting' or pass) .. '   {discard} cancel')
    end
  end
end

--- The edits of the only document that a result is about.
---@param edit lsp.WorkspaceEdit
---@return lsp.TextEdit[]
local function edits_of(edit)
  if edit.documentChanges then
    return edit.documentChanges[1].edits
  end
  local _, edits = next(edit.changes)
  return edits
end

---@param preview diffgemma.Preview
---@param result table
local function finish(preview, result)
  preview.result = result
  local choices = preview.action == 'rewrite' and '{again} again   {more} more   {less} less'
    or '{again} again'
  if type(result.message) == 'string' then
    if not preview.drawn then
      M.close(preview.bufnr)
      if preview.echoed then -- so what the server said was wiped
        api.nvim_echo({ { result.message } }, false, {})
      end
      return
    end
    return show(preview, {}, ('%s   {discard} close   %s'):format(result.message, choices))
  end
  local changes = vim.tbl_map(function(edit)
    local chunks = { { edit.newText, 'DiffgemmaNew' } }
    return draw.change(preview.bufnr, edit.range, preview.client.offset_encoding, chunks)
  end, edits_of(result.edit))
  local told = {}
  if type(result.confidence) == 'number' then -- null where it was not measured
    table.insert(told, ('%d%% sure'):format(100 * result.confidence))
  end
  if not result.finished then
    table.insert(told, 'the time was up')
  end
  local keys = { '{accept} accept', '{discard} discard', choices, table.concat(told, ', ') }
  show(preview, changes, vim.trim(table.concat(keys, '   ')))
end

---@param preview diffgemma.Preview
local function start(preview)
  if preview.request then
    preview.client:cancel_request(preview.request)
  end
  runs = runs + 1
  local token = ('nvim/%d'):format(runs)
  preview.token, preview.order.token, preview.result = token, token, nil
  show(preview, {}, 'working   {discard} cancel')
  local function answered(err, result)
    if preview.token ~= token or shown[preview.bufnr] ~= preview then
      return
    end
    preview.request = nil
    if err then
      M.close(preview.bufnr)
      server.notify(err.message, vim.log.levels.ERROR)
    else
      finish(preview, result)
    end
  end
  local command = 'diffgemma.' .. preview.action
  local params = { command = command, arguments = { preview.order } }
  local method = 'workspace/executeCommand'
  local sent, request = preview.client:request(method, params, answered, preview.bufnr)
  preview.request = sent and request or nil
end

function does.discard(preview) M.close(preview.bufnr) end

function does.accept(preview)
  local result = preview.result
  if not (result and type(result.edit) == 'table') then
    server.notify(preview.request and 'it is not done yet' or 'there is nothing to accept')
    return
  end
  M.close(preview.bufnr)
  vim.lsp.util.apply_workspace_edit(result.edit, preview.client.offset_encoding)
end

function does.again(preview)
  local seed = preview.result and preview.result.seed or preview.order.seed
  preview.order.seed = (seed or 0) + 1
  start(preview)
end

---@param by number
local function stronger(by)
  return function(preview)
    local strength = preview.result and preview.result.strength or preview.order.strength
    if type(strength) ~= 'number' then
      return -- not known before the first answer
    end
    preview.order.strength = math.max(0, math.min(1, strength + by))
    start(preview)
  end
end

does.more, does.less = stronger(STEP), stronger(-STEP)

--- Runs an action in the current buffer and shows what it would change.
---@param client vim.lsp.Client
---@param action string
---@param order table The argument of its command, with the version that the range is about.
function M.open(client, action, order)
  local bufnr = api.nvim_get_current_buf()
  M.close(bufnr)
  order.apply = false
  ---@type diffgemma.Preview
  local preview = {
    client = client,
    bufnr = bufnr,
    action = action,
    order = order,
    token = '',
    drawn = false,
    echoed = false,
    keys = require('diffgemma.settings').get().preview_keys,
    saved = {},
  }
  shown[bufnr] = preview
  set_keys(preview)
  api.nvim_create_autocmd({ 'TextChanged', 'TextChangedI', 'BufUnload' }, {
    group = group,
    buffer = bufnr,
    callback = function()
      if shown[bufnr] == preview and not is_current(preview) then
        M.close(bufnr)
        server.notify('the text was changed, so the preview is gone')
      end
    end,
  })
  start(preview)
end

return M
