--- :Diffgemma status        how the server is doing, and why nothing was shown in this buffer
--- :Diffgemma unload        frees the model's memory
--- :[range]Diffgemma ACTION fill, rewrite, holes, docstring, hints or body: there, or at the cursor

--- The code actions, by the last part of their command's name.
local kinds = { rewrite = 'selection' }
for _, name in ipairs({ 'fill', 'holes', 'docstring', 'hints', 'body' }) do
  kinds[name] = name
end

local run = {}

function run.status(client)
  local params = { textDocument = vim.lsp.util.make_text_document_params() }
  client:request('diffgemma/status', params, function(error, result)
    if error then
      return vim.notify(error.message, vim.log.levels.ERROR)
    end
    local lines = { ('diffgemma: %s, %s'):format(result.state, result.message) }
    if type(result.document.off) == 'string' then
      lines[#lines + 1] = result.document.off
    end
    for method, reason in vim.spairs(result.document.reasons) do
      lines[#lines + 1] = ('%s: %s'):format(method, reason)
    end
    vim.notify(table.concat(lines, '\n'))
  end)
end

function run.unload(client)
  client:exec_cmd({ title = 'Unload', command = 'diffgemma.unload' })
end

local function act(kind, command)
  local range
  if command.range > 0 then
    local last = vim.fn.getline(command.line2)
    range = { start = { command.line1, 0 }, ['end'] = { command.line2, #last } }
  end
  local only = { 'refactor.rewrite.diffgemma.' .. kind }
  vim.lsp.buf.code_action({ context = { only = only }, range = range, apply = true })
end

vim.api.nvim_create_user_command('Diffgemma', function(command)
  local client = vim.lsp.get_clients({ name = 'diffgemma', bufnr = 0 })[1]
  local name = command.args
  if not client then
    vim.notify('diffgemma: no server for this buffer; see :checkhealth vim.lsp', vim.log.levels.WARN)
  elseif run[name] then
    run[name](client)
  elseif kinds[name] then
    act(kinds[name], command)
  else
    vim.notify(('diffgemma: there is no %q'):format(name), vim.log.levels.ERROR)
  end
end, {
  nargs = 1,
  range = true,
  desc = 'Ask the diffgemma server for something',
  complete = function(start)
    local names = vim.list_extend(vim.tbl_keys(run), vim.tbl_keys(kinds))
    table.sort(names)
    return vim.tbl_filter(function(name) return vim.startswith(name, start) end, names)
  end,
})
