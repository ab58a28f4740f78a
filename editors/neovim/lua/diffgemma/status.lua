--- How the server is doing: told by it as it changes, shown in the statusline, asked for in full.
local M = {}

local server = require('diffgemma.server')
local suggest = require('diffgemma.suggest')

---@class diffgemma.Status
---@field state 'idle'|'loading'|'ready'|'filling'|'slow'|'off'|'error'
---@field message string
---@field percent integer|vim.NIL

local known = {} ---@type table<integer, diffgemma.Status>

--- `diffgemma/didChangeStatus`.
---@param status diffgemma.Status
---@param context lsp.HandlerContext
function M.changed(_, status, context)
  known[context.client_id] = status
  vim.cmd.redrawstatus({ bang = true })
end

--- The server has ended.
---@param client_id integer
function M.forget(client_id)
  known[client_id] = nil
  vim.cmd.redrawstatus({ bang = true })
end

--- A few letters for a statusline about the current buffer; empty where the server is not wanted.
---@return string
function M.statusline()
  local client = server.client()
  if not client then
    local filetypes = vim.lsp.is_enabled(server.NAME) and server.config().filetypes
    local wanted = filetypes and vim.list_contains(filetypes, vim.bo.filetype)
    local what = server.is_starting() and 'starting' or 'no server'
    return wanted and 'diffgemma: ' .. what or ''
  end
  if not suggest.is_on() then
    return 'diffgemma: off here'
  end
  local status = known[client.id]
  if not status or status.state == 'idle' or status.state == 'ready' then
    return 'diffgemma'
  end
  if status.state == 'filling' then
    return 'diffgemma …'
  end
  local loaded = status.state == 'loading' and type(status.percent) == 'number'
  return 'diffgemma: ' .. (loaded and ('loading %d%%%%'):format(status.percent) or status.state)
end

--- What `diffgemma/status` says of the server and of a buffer, a line each.
---@param result table
---@return string[]
function M.lines(result)
  local model = type(result.model) == 'string' and (' (%s)'):format(result.model) or ''
  local lines = { result.message .. model }
  local document = result.document
  if type(document) == 'table' then
    if type(document.off) == 'string' then
      lines[#lines + 1] = document.off
    end
    for method, reason in vim.spairs(document.reasons) do
      lines[#lines + 1] = ('%s: %s'):format(method, reason)
    end
  end
  return lines
end

--- Shows all that there is to know about the current buffer.
---@param more? string A last line.
function M.show(more)
  local client = server.needed()
  if not client then
    return more and server.notify(more)
  end
  local here = suggest.is_on()
  local params = { textDocument = vim.lsp.util.make_text_document_params() }
  client:request('diffgemma/status', params, function(err, result)
    if err then
      return server.notify(err.message, vim.log.levels.ERROR)
    end
    local lines = M.lines(result)
    if not here then
      table.insert(lines, 2, 'ghost text is turned off in this buffer; :Diffgemma on')
    end
    lines[#lines + 1] = more
    server.notify(table.concat(lines, '\n'))
  end)
end

return M
