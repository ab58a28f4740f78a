-- What tests ask a running Neovim for, over a socket: a line of Lua in, a line of JSON out.
local M = {}

---The ghost text that is shown, or an empty string.
function M.ghost() return M.drawn('nvim.lsp.inline_completion') end

---What a preview has drawn, line by line, or an empty string.
function M.preview() return M.drawn('diffgemma.preview') end

---@param namespace string
function M.drawn(namespace)
  local ns = vim.api.nvim_create_namespace(namespace)
  local lines = {}
  for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })) do
    local texts = { unpack(mark[4].virt_lines or {}) }
    if mark[4].virt_text then
      table.insert(texts, 1, mark[4].virt_text)
    end
    for _, chunks in ipairs(texts) do
      lines[#lines + 1] = vim.iter(chunks):map(function(chunk) return chunk[1] end):join('')
    end
  end
  return table.concat(lines, '\n')
end

---How many servers have answered `initialize`.
function M.attached()
  return #vim.tbl_filter(function(client) return client.initialized end, vim.lsp.get_clients())
end

---@return string
function M.text() return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n') end

---All messages that were shown since Neovim started.
function M.messages() return vim.api.nvim_exec2('messages', { output = true }).output end

---@return vim.lsp.Client
local function client()
  local found = require('diffgemma.server').client()
  return assert(found, 'there is no server')
end

---What the server answers to a request.
function M.ask(method, params)
  local answer = assert(client():request_sync(method, params or vim.empty_dict(), 60000))
  return assert(answer.result, vim.inspect(answer.err))
end

---@return table
function M.status()
  return M.ask('diffgemma/status', { textDocument = vim.lsp.util.make_text_document_params() })
end

---What the server says of the current buffer.
function M.document()
  local document = M.status().document
  return { off = document.off ~= vim.NIL and document.off or nil, reasons = document.reasons }
end

---Why the last request of a method came to nothing; empty if it did not.
function M.reason(method) return M.document().reasons[method] or '' end

---Changes the server's settings.
function M.set(settings)
  client().settings = { diffgemma = settings }
  client():notify('workspace/didChangeConfiguration', { settings = client().settings })
end

---@param source string
local function answer(source)
  local chunk, wrong = loadstring('return ' .. source)
  if not chunk then
    return { error = wrong }
  end
  local ok, value = pcall(chunk)
  if not ok then
    return { error = tostring(value) }
  end
  return { value = vim.F.if_nil(value, vim.NIL) }
end

local listener = assert(vim.uv.new_pipe())
assert(listener:bind('probe.sock'))
listener:listen(8, function()
  local peer = assert(vim.uv.new_pipe())
  listener:accept(peer)
  local got = ''
  peer:read_start(function(_, data)
    got = got .. (data or '')
    local line, rest = got:match('^(.-)\n(.*)$')
    if line then
      got = rest
      vim.schedule(function() peer:write(vim.json.encode(answer(line)) .. '\n') end)
    end
  end)
end)

_G.probe = M
