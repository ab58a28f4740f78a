--- Draws what a run would make of a buffer, in virtual lines below what stands there.
local M = {}

local api = vim.api
local namespace = api.nvim_create_namespace('diffgemma.preview')

---@alias diffgemma.Chunk [string, string] A text and its highlight group.

---@class diffgemma.Change What takes the place of a range.
---@field start [integer, integer] Line and byte, from 0.
---@field stop [integer, integer] Exclusive.
---@field chunks diffgemma.Chunk[]

for name, default in pairs({
  Old = 'DiffDelete', -- what would go
  New = 'DiffAdd', -- what would come
  Context = 'Normal', -- what stays, on a line that changes
  Sure = 'Normal', -- of a run: what has settled,
  Likely = 'Comment', -- what could still change,
  Unsure = 'NonText', -- and what probably will
  Hint = 'ComplHintMore',
}) do
  api.nvim_set_hl(0, 'Diffgemma' .. name, { link = default, default = true })
end

--- The highlight of a piece of a frame.
---@param certainty number From 0 to 1.
---@return string
function M.tint(certainty)
  if certainty >= 0.9 then
    return 'DiffgemmaSure'
  end
  return certainty >= 0.5 and 'DiffgemmaLikely' or 'DiffgemmaUnsure'
end

---@param bufnr integer
---@param position lsp.Position
---@param encoding 'utf-8'|'utf-16'|'utf-32'
---@return [integer, integer]
local function place(bufnr, position, encoding)
  local line = api.nvim_buf_get_lines(bufnr, position.line, position.line + 1, false)[1]
  if not line then
    return { position.line, 0 }
  end
  return { position.line, vim.str_byteindex(line, encoding, position.character, false) }
end

--- A change of an LSP range.
---@param bufnr integer
---@param range lsp.Range
---@param encoding 'utf-8'|'utf-16'|'utf-32'
---@param chunks diffgemma.Chunk[]
---@return diffgemma.Change
function M.change(bufnr, range, encoding, chunks)
  return {
    start = place(bufnr, range.start, encoding),
    stop = place(bufnr, range['end'], encoding),
    chunks = chunks,
  }
end

--- Changes of the same lines or of adjacent ones, together. They have to be in order.
---@param changes diffgemma.Change[]
---@return diffgemma.Change[][]
local function by_lines(changes)
  local groups = {} ---@type diffgemma.Change[][]
  for _, change in ipairs(changes) do
    local group = groups[#groups]
    if group and change.start[1] <= group[#group].stop[1] + 1 then
      group[#group + 1] = change
    else
      groups[#groups + 1] = { change }
    end
  end
  return groups
end

--- The lines as they would be, in chunks.
---@param bufnr integer
---@param group diffgemma.Change[]
---@param last integer The last line of the group.
---@return diffgemma.Chunk[][]
local function after(bufnr, group, last)
  local chunks = {} ---@type diffgemma.Chunk[]
  local function keep(from, to)
    local text = api.nvim_buf_get_text(bufnr, from[1], from[2], to[1], to[2], {})
    chunks[#chunks + 1] = { table.concat(text, '\n'), 'DiffgemmaContext' }
  end
  local from = { group[1].start[1], 0 }
  for _, change in ipairs(group) do
    keep(from, change.start)
    vim.list_extend(chunks, change.chunks)
    from = change.stop
  end
  keep(from, { last, #api.nvim_buf_get_lines(bufnr, last, last + 1, true)[1] })

  local lines = { {} } ---@type diffgemma.Chunk[][]
  for _, chunk in ipairs(chunks) do
    for number, text in ipairs(vim.split(chunk[1], '\n')) do
      if number > 1 then
        lines[#lines + 1] = {}
      end
      if text ~= '' then
        -- A tab has no width of its own in virtual text.
        local shown = text:gsub('\t', (' '):rep(vim.bo[bufnr].tabstop))
        table.insert(lines[#lines], { shown, chunk[2] })
      end
    end
  end
  return lines
end

--- Removes what `show` drew.
---@param bufnr integer
function M.clear(bufnr)
  if api.nvim_buf_is_valid(bufnr) then
    api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
  end
end

--- Draws changes and, below the last of them, a hint; in the place of what was drawn before.
---@param bufnr integer
---@param changes diffgemma.Change[]
---@param hint string
---@param line integer Where the hint goes if there are no changes, from 0.
---@return integer line Below which it went,
---@return integer rows and how many rows are drawn there.
function M.show(bufnr, changes, hint, line)
  M.clear(bufnr)
  table.sort(changes, function(one, other)
    local a, b = one.start, other.start
    return a[1] < b[1] or a[1] == b[1] and a[2] < b[2]
  end)
  local most = api.nvim_buf_line_count(bufnr) - 1
  local rows = 1
  for _, group in ipairs(by_lines(changes)) do
    local stop = group[#group].stop
    -- A range of whole lines ends where the next line begins, which stays as it is.
    local last = math.min(most, stop[1])
    if stop[2] == 0 and stop[1] > group[#group].start[1] then
      last = math.min(most, stop[1] - 1)
      stop = { last, #api.nvim_buf_get_lines(bufnr, last, last + 1, true)[1] }
      group[#group].stop = stop
      local chunks = group[#group].chunks
      if #chunks > 0 then
        chunks[#chunks] = { chunks[#chunks][1]:gsub('\n$', ''), chunks[#chunks][2] }
      end
    end
    for _, change in ipairs(group) do
      api.nvim_buf_set_extmark(bufnr, namespace, change.start[1], change.start[2], {
        end_row = change.stop[1],
        end_col = change.stop[2],
        hl_group = 'DiffgemmaOld',
      })
    end
    local lines = after(bufnr, group, last)
    api.nvim_buf_set_extmark(bufnr, namespace, last, 0, { virt_lines = lines })
    line, rows = last, #lines + 1
  end
  line = math.min(most, line)
  local below = { { { hint, 'DiffgemmaHint' } } }
  api.nvim_buf_set_extmark(bufnr, namespace, line, 0, { virt_lines = below })
  return line, rows
end

return M
