--- :Diffgemma, and what its names do.
local M = {}

local api = vim.api
local server = require('diffgemma.server')

--- What the server's commands do, by the last part of their names.
M.ACTIONS = { 'rewrite', 'holes', 'fill', 'docstring', 'hints', 'body', 'instruct', 'fix' }

---@type table<string, fun(bang: boolean)>
local others = {
  status = function() require('diffgemma.status').show() end,
  unload = function()
    local client = server.needed()
    if client then
      client:exec_cmd({ title = 'Unload', command = 'diffgemma.unload' })
    end
  end,
  next = function()
    if not require('diffgemma.next_edit').go() then
      server.notify('no next edit here: see :Diffgemma status')
    end
  end,
  refuse = function()
    if not require('diffgemma.next_edit').refuse() then
      server.notify('no next edit here: see :Diffgemma status')
    end
  end,
  restart = server.restart,
  on = function(all)
    require('diffgemma.suggest').turn(true, not all and api.nvim_get_current_buf() or nil)
  end,
  off = function(all)
    require('diffgemma.suggest').turn(false, not all and api.nvim_get_current_buf() or nil)
  end,
}

---@alias diffgemma.Place [integer, integer] Line from 1 and byte from 0, as of nvim_win_get_cursor.

---@param client vim.lsp.Client
---@param at diffgemma.Place
---@return lsp.Position
local function position(client, at)
  local line = api.nvim_buf_get_lines(0, at[1] - 1, at[1], true)[1]
  local byte = math.min(at[2], #line)
  return {
    line = at[1] - 1,
    character = vim.str_utfindex(line, client.offset_encoding, byte, false),
  }
end

--- From a first to a last character, or the lines that they are in.
---@param from diffgemma.Place
---@param to diffgemma.Place On the last character.
---@param linewise boolean
---@return diffgemma.Place start
---@return diffgemma.Place stop
local function region(from, to, linewise)
  local last = api.nvim_buf_get_lines(0, to[1] - 1, to[1], true)[1]
  if linewise then
    return { from[1], 0 }, { to[1], #last }
  end
  -- Behind the character, however many bytes it has.
  local size = #vim.fn.matchstr(last:sub(to[2] + 1), '^.')
  return from, { to[1], to[2] + size }
end

---@class diffgemma.RunOpts
---@field range? [diffgemma.Place, diffgemma.Place] Default: the selection, or else the cursor.
---@field preview? boolean False has it applied at once. Default: true
---@field instruction? string For a model that follows instructions.
---@field strength? number How much of a selection may change, from 0 to 1.
---@field seed? integer Another one gives another answer.

---@return [diffgemma.Place, diffgemma.Place]
local function selection()
  local mode = api.nvim_get_mode().mode
  if not mode:match('^[vV\22]') then
    local cursor = api.nvim_win_get_cursor(0)
    return { cursor, cursor }
  end
  local from, to = vim.fn.getpos('v'), vim.fn.getpos('.')
  if from[2] > to[2] or from[2] == to[2] and from[3] > to[3] then
    from, to = to, from
  end
  vim.cmd.normal({ args = { '\27' }, bang = true })
  return { region({ from[2], from[3] - 1 }, { to[2], to[3] - 1 }, mode ~= 'v') }
end

--- Runs one of the actions in the current buffer.
---@param action string
---@param opts? diffgemma.RunOpts
function M.act(action, opts)
  opts = opts or {}
  local client = server.needed()
  if not client then
    return
  end
  vim.cmd.stopinsert()
  local range = opts.range or selection()
  local bufnr = api.nvim_get_current_buf()
  local order = {
    textDocument = { uri = vim.uri_from_bufnr(bufnr), version = vim.lsp.util.buf_versions[bufnr] },
    range = { start = position(client, range[1]), ['end'] = position(client, range[2]) },
    instruction = opts.instruction,
    strength = opts.strength,
    seed = opts.seed,
  }
  if opts.preview ~= false then
    return require('diffgemma.preview').open(client, action, order)
  end
  client:exec_cmd({ title = action, command = 'diffgemma.' .. action, arguments = { order } })
end

---@param command vim.api.keyset.create_user_command.command_args
---@return [diffgemma.Place, diffgemma.Place]
local function range_of(command)
  local from, to = api.nvim_buf_get_mark(0, '<'), api.nvim_buf_get_mark(0, '>')
  local selected = from[1] == command.line1 and to[1] == command.line2
  if selected and vim.fn.visualmode() == 'v' then
    return { region(from, to, false) }
  end
  return { region({ command.line1, 0 }, { command.line2, 0 }, true) }
end

---@param command vim.api.keyset.create_user_command.command_args
function M.run(command)
  local name, words = command.fargs[1], table.concat(command.fargs, ' ', 2)
  local names = ':Diffgemma takes one of: ' .. table.concat(M.complete(''), ', ')
  if not name then
    require('diffgemma.status').show(names)
  elseif others[name] then
    others[name](command.bang)
  elseif vim.list_contains(M.ACTIONS, name) then
    M.act(name, {
      range = command.range > 0 and range_of(command) or nil,
      preview = not command.bang,
      instruction = words ~= '' and words or nil,
    })
  else
    server.notify(('there is no %q; %s'):format(name, names), vim.log.levels.ERROR)
  end
end

---@param start string
---@return string[]
function M.complete(start)
  local names = vim.list_extend(vim.tbl_keys(others), M.ACTIONS)
  table.sort(names)
  return vim.tbl_filter(function(name) return vim.startswith(name, start) end, names)
end

return M
