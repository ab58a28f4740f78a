--- :checkhealth diffgemma
local M = {}

local health = vim.health
local server = require('diffgemma.server')

--- The engine takes its time where it has to be started first.
local DOCTOR_MS, STATUS_MS = 120000, 5000

local function check_neovim()
  health.start('diffgemma: Neovim')
  health.ok(tostring(vim.version()))
  local _, complaints = require('diffgemma.settings').read()
  for _, complaint in ipairs(complaints) do
    health.warn('vim.g.diffgemma: ' .. complaint, 'see :help diffgemma-settings')
  end
end

local SET_CMD =
  'set its path: vim.lsp.config("diffgemma", { cmd = { "/path/to/.venv/bin/diffgemma-lsp" } })'

--- Whether the rest can be looked at.
---@return boolean
local function check_program()
  health.start('diffgemma: the server')
  local wrong = server.wrong_command()
  if wrong then
    health.error(wrong, SET_CMD)
    return false
  end
  if not vim.lsp.is_enabled(server.NAME) then
    local enable = ('put vim.lsp.enable("%s") into init.lua'):format(server.NAME)
    health.error('it is not enabled', enable)
    return false
  end
  health.ok('its program is there')
  return true
end

--- The filetypes of open files that it does not serve.
local function check_filetypes()
  local wanted = server.config().filetypes
  if not wanted then
    return
  end
  local left = {}
  for _, info in ipairs(vim.fn.getbufinfo({ buflisted = 1 })) do
    local filetype = vim.bo[info.bufnr].filetype
    if filetype ~= '' and not vim.list_contains(wanted, filetype) then
      left[filetype] = true
    end
  end
  if next(left) then
    local names = vim.tbl_keys(left)
    table.sort(names)
    health.warn(
      ('open files of %s are not served, only: %s'):format(
        table.concat(names, ', '),
        table.concat(wanted, ', ')
      ),
      'name what it is to serve: vim.lsp.config("diffgemma", { filetypes = { "python", "lua" } })'
    )
  end
end

local function check_clients()
  local clients = vim.lsp.get_clients({ name = server.NAME })
  local last_words = 'its last words are in ' .. vim.lsp.log.get_filename()
  if #clients == 0 and server.is_starting() then
    health.warn('it was started and has not answered yet', 'if that lasts, ' .. last_words)
  elseif #clients == 0 then
    local filetypes = server.config().filetypes or {}
    health.warn('it is not running', {
      ('open a file of one of its filetypes: %s'):format(table.concat(filetypes, ', ')),
      ':Diffgemma restart starts it for files that are open',
      'if it ends at once, ' .. last_words,
    })
  end
  for _, client in ipairs(clients) do
    local buffers = vim.tbl_count(client.attached_buffers)
    health.ok(('client %d serves %d buffers'):format(client.id, buffers))
    local answer, err = client:request_sync('diffgemma/status', vim.empty_dict(), STATUS_MS)
    local result = answer and answer.result
    if not result then
      health.error('it does not answer: ' .. (err or 'an error'), ':Diffgemma restart')
    else
      local told = table.concat(require('diffgemma.status').lines(result), '\n')
      local report = result.state == 'error' and health.error
        or result.state == 'slow' and health.warn
        or health.ok
      report(told)
      if type(result.lastReason) == 'string' then
        health.info('nothing was shown last time: ' .. result.lastReason)
      end
    end
  end
end

--- The doctor of the program, for the model and the device that the server is told to use.
---@param cmd string[]
---@param options table The server's initializationOptions.
---@return string[]
local function doctor(cmd, options)
  local command = vim.tbl_filter(function(word) return word ~= '--stdio' end, cmd)
  command[#command + 1] = 'doctor'
  for _, name in ipairs({ 'model', 'device' }) do
    if type(options[name]) == 'string' then
      vim.list_extend(command, { '--' .. name, options[name] })
    end
  end
  return command
end

--- The program's own report, which fills a hole.
local function check_engine()
  health.start('diffgemma: the engine')
  local config = server.config()
  local cmd = config.cmd
  if type(cmd) ~= 'table' then
    return health.info('the server is started by a function, so its doctor is not asked')
  end
  local command = doctor(cmd, config.init_options or {})
  local shown = table.concat(command, ' ')
  local where = { text = true, cwd = config.cmd_cwd, env = config.cmd_env }
  local ok, done = pcall(function() return vim.system(command, where):wait(DOCTOR_MS) end)
  if not ok then
    return health.error(("`%s` can't be started: %s"):format(shown, done), SET_CMD)
  elseif done.code == 124 then
    return health.error(('`%s` did not end'):format(shown))
  end
  local said = vim.trim(done.stdout .. done.stderr)
  if not said:find('diffgemma-lsp', 1, true) then
    local what = said == '' and 'nothing' or said
    return health.error(('`%s` is not the doctor, it says: %s'):format(shown, what), SET_CMD)
  end
  local report = done.code == 0 and health.ok or health.error
  report(said)
end

function M.check()
  check_neovim()
  if check_program() then
    check_filetypes()
    check_clients()
    check_engine()
  end
end

return M
