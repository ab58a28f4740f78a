--- The client of the server: which one it is, what follows when it comes and goes.
local M = {}

M.NAME = require('diffgemma.settings').get().name

--- So many times in RESTART_WINDOW_S it is started again by itself.
local MOST_RESTARTS, RESTART_WINDOW_S = 3, 180

--- By then Neovim has cleared away what was left of a server, and has said its own word about it.
local AFTERWARDS_MS = 100

--- A server answers in half a second; a cold disk may take it ten.
local ANSWER_S = 15

local WAY_OUT = '; :checkhealth diffgemma says what to do'

local told = {} ---@type table<string, boolean>
local restarts = {} ---@type integer[]
local has_worked = {} ---@type table<integer, boolean>
local unanswered = {} ---@type table<vim.lsp.ClientConfig, boolean>

---@param message string
---@param level? integer
function M.notify(message, level)
  local text = 'diffgemma: ' .. message
  vim.notify(text, level or vim.log.levels.INFO)
end

---@param message string
---@param level? integer
local function notify_once(message, level)
  if not told[message] then
    told[message] = true
    M.notify(message, level or vim.log.levels.WARN)
  end
end

--- Its configuration; empty if there is none of its name.
---@return vim.lsp.Config
function M.config() return vim.lsp.config[M.NAME] or {} end

--- The client of a buffer.
---@param bufnr? integer
---@return vim.lsp.Client?
function M.client(bufnr) return vim.lsp.get_clients({ name = M.NAME, bufnr = bufnr or 0 })[1] end

--- The client of the current buffer; without one, says so and what to do.
---@return vim.lsp.Client?
function M.needed()
  local client = M.client()
  if not client and M.is_starting() then
    M.notify('the server is being started: ask again in a moment')
  elseif not client then
    M.notify('no server for this buffer; :checkhealth diffgemma says why', vim.log.levels.WARN)
  end
  return client
end

--- Whether one was started that has not answered yet.
---@return boolean
function M.is_starting() return next(unanswered) ~= nil end

--- Why the command of the configuration can't be started, if that can be seen.
---@return string?
function M.wrong_command()
  local cmd = M.config().cmd ---@type unknown
  if type(cmd) == 'function' then
    return nil
  end
  if type(cmd) ~= 'table' or type(cmd[1]) ~= 'string' then
    return ('cmd has to be a list of words, not %s'):format(vim.inspect(cmd))
  end
  return vim.fn.executable(cmd[1]) == 0 and cmd[1] .. ' is not executable' or nil
end

--- Neovim is silent about a server whose program is not there.
---@param args vim.api.keyset.create_autocmd.callback_args
function M.check(args)
  if not vim.lsp.is_enabled(M.NAME) or M.client(args.buf) then
    return
  end
  local filetypes = M.config().filetypes
  if filetypes and not vim.list_contains(filetypes, vim.bo[args.buf].filetype) then
    return
  end
  local wrong = M.wrong_command()
  if wrong then
    -- Later: what is drawn at start covers a message.
    vim.schedule(function() notify_once(wrong .. WAY_OUT) end)
  end
end

--- A program that runs and never answers would be waited for in silence.
---@param config vim.lsp.ClientConfig
function M.starting(_, config)
  unanswered[config] = true
  vim.defer_fn(function()
    if unanswered[config] then
      notify_once(('the server has not answered for %d s'):format(ANSWER_S) .. WAY_OUT)
    end
  end, ANSWER_S * 1000)
end

---@param client vim.lsp.Client
function M.answered(client) unanswered[client.config] = nil end

---@param args vim.api.keyset.create_autocmd.callback_args
function M.attached(args)
  local client = vim.lsp.get_client_by_id(args.data.client_id)
  if not client or client.name ~= M.NAME then
    return
  end
  has_worked[client.id] = true
  local _, complaints = require('diffgemma.settings').read()
  for _, complaint in ipairs(complaints) do
    notify_once(('vim.g.diffgemma: %s; it is ignored'):format(complaint))
  end
  require('diffgemma.suggest').attach(args.buf)
  require('diffgemma.next_edit').attach(args.buf)
end

---@param args vim.api.keyset.create_autocmd.callback_args
function M.detached(args)
  local client = vim.lsp.get_client_by_id(args.data.client_id)
  if client and client.name == M.NAME then
    require('diffgemma.preview').close(args.buf)
  end
end

--- `window/showMessage`: without the name of the server, which Neovim puts before it.
---@param params lsp.ShowMessageParams
function M.said(_, params)
  local message = params.message:gsub('^diffgemma%-lsp: ', '')
  M.notify(message, vim.log.levels.ERROR + vim.lsp.protocol.MessageType.Error - params.type)
end

--- The server's process is over. One that had worked is started again, but not for ever.
---@param code integer
---@param signal integer
---@param client_id integer
function M.ended(code, signal, client_id)
  local client = vim.lsp.get_client_by_id(client_id)
  if client then
    unanswered[client.config] = nil
  end
  vim.defer_fn(function()
    require('diffgemma.status').forget(client_id)
    local worked = has_worked[client_id]
    has_worked[client_id] = nil
    -- Neovim ends one by a request, or by a signal where it does not serve yet.
    local asked_for = code == 0 and (signal == 15 or worked and signal == 0)
    if asked_for or vim.v.exiting ~= vim.NIL then
      return
    end
    local now = vim.uv.now() / 1000
    restarts = vim.tbl_filter(function(at) return now - at < RESTART_WINDOW_S end, restarts)
    if worked and #restarts < MOST_RESTARTS then
      restarts[#restarts + 1] = now
      M.notify('the server ended unexpectedly and is started again', vim.log.levels.WARN)
      vim.lsp.enable(M.NAME)
    else
      local when = worked and '' or ' before it served'
      local how = ('the server ended%s (code %d, signal %d)'):format(when, code, signal)
      local again = worked and '; :Diffgemma restart starts it again' or ''
      notify_once(how .. again .. WAY_OUT, vim.log.levels.ERROR)
    end
  end, AFTERWARDS_MS)
end

--- Ends the server and starts it anew for all its buffers.
function M.restart()
  restarts, told = {}, {}
  vim.lsp.enable(M.NAME, false)
  vim.lsp.enable(M.NAME)
  local wrong = M.wrong_command()
  if wrong then
    notify_once(wrong .. WAY_OUT, vim.log.levels.ERROR)
  end
end

return M
