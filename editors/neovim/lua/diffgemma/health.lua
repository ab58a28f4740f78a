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

--- Whether the rest can be looked at.
---@return boolean
local function check_program()
  health.start('diffgemma: the server')
  local program = server.not_executable()
  if program then
    health.error(program .. ' is not executable', {
      'set its path: vim.lsp.config("diffgemma", { cmd = { "/path/to/.venv/bin/diffgemma-lsp" } })',
    })
    return false
  end
  if not vim.lsp.is_enabled(server.NAME) then
    health.error('it is not enabled', 'put vim.lsp.enable("diffgemma") into init.lua')
    return false
  end
  health.ok('its program is there')
  return true
end

local function check_clients()
  local clients = vim.lsp.get_clients({ name = server.NAME })
  if #clients == 0 then
    local filetypes = vim.lsp.config[server.NAME].filetypes or {}
    health.warn('it is not running', {
      ('open a file of one of its filetypes: %s'):format(table.concat(filetypes, ', ')),
      ':Diffgemma restart starts it for files that are open',
      'if it ends at once, its last words are in ' .. vim.lsp.log.get_filename(),
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

--- The program's own report, which fills a hole.
local function check_engine()
  health.start('diffgemma: the engine')
  local cmd = vim.lsp.config[server.NAME].cmd
  if type(cmd) ~= 'table' then
    return health.info('the server is started by a function, so its doctor is not asked')
  end
  local command = vim.list_extend(vim.deepcopy(cmd), { 'doctor' })
  local ok, done = pcall(function() return vim.system(command, { text = true }):wait(DOCTOR_MS) end)
  if not ok or done.code == 124 then
    return health.error(('`%s` did not end'):format(table.concat(command, ' ')))
  end
  local report = done.code == 0 and health.ok or health.error
  report(vim.trim(done.stdout .. done.stderr))
end

function M.check()
  check_neovim()
  if check_program() then
    check_clients()
    check_engine()
  end
end

return M
