--- What can be set in `vim.g.diffgemma`. What the server does is set with vim.lsp.config().
local M = {}

---@class diffgemma.Settings
---@field name string Of the client: what `vim.lsp.enable` is told.
---@field automatic boolean Whether to suggest while typing, or only when asked.
---@field next_edits boolean Whether to ask, after each edit, what must follow it.
---@field preview_keys table<diffgemma.PreviewKey, string> What is mapped while a preview is shown.

---@alias diffgemma.PreviewKey 'accept'|'discard'|'again'|'more'|'less'

---@type diffgemma.Settings
local defaults = {
  name = 'diffgemma',
  automatic = true,
  next_edits = true,
  preview_keys = { accept = '<CR>', discard = '<Esc>', again = 'r', more = '+', less = '-' },
}

---@param given table
---@param known table
---@param where string
---@param complaints string[]
local function overlay(given, known, where, complaints)
  local result = vim.deepcopy(known)
  for name, value in vim.spairs(given) do
    local default = known[name]
    if default == nil then
      complaints[#complaints + 1] = ('%s%s: there is no such setting'):format(where, name)
    elseif type(value) ~= type(default) then
      local expected = ('%s%s: expected a %s, got %s'):format(
        where,
        name,
        type(default),
        vim.inspect(value)
      )
      complaints[#complaints + 1] = expected
    elseif type(default) == 'table' then
      result[name] = overlay(value, default, where .. name .. '.', complaints)
    else
      result[name] = value
    end
  end
  return result
end

--- What holds, and a line about everything in `vim.g.diffgemma` that is wrong. A wrong value counts
--- as not said.
---@return diffgemma.Settings settings
---@return string[] complaints
function M.read()
  local given = vim.g.diffgemma
  if given == nil then
    return vim.deepcopy(defaults), {}
  end
  if type(given) ~= 'table' then
    return vim.deepcopy(defaults), { ('expected a table, got %s'):format(vim.inspect(given)) }
  end
  local complaints = {}
  return overlay(given, defaults, '', complaints), complaints
end

--- `read()` for who needs no more than the settings.
---@return diffgemma.Settings
function M.get() return (M.read()) end

return M
