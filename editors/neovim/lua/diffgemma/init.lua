--- What keys and statuslines can use. `:help diffgemma` has each, with keys to map.
local M = {}

local function suggest() return require('diffgemma.suggest') end

--- Accepts the suggestion that is shown; false if there is none.
---@return boolean
function M.accept() return suggest().accept() end

--- Accepts its next word, and goes on showing the rest.
---@return boolean
function M.accept_word() return suggest().accept_word() end

--- Accepts it up to the end of the line.
---@return boolean
function M.accept_line() return suggest().accept_line() end

--- Clears it.
---@return boolean
function M.dismiss() return suggest().dismiss() end

--- Asks for a suggestion now, with more time for it.
function M.ask() suggest().ask() end

--- Shows the next candidate.
function M.next() suggest().cycle(1) end

--- Shows the one before.
function M.previous() suggest().cycle(-1) end

--- Jumps to the next edit that is shown, and accepts it where the cursor is in its line already;
--- false if there is none.
---@return boolean
function M.next_edit() return require('diffgemma.next_edit').go() end

--- Refuses the next edit that is shown, which is then not offered again, and shows the next one;
--- false if there is none.
---@return boolean
function M.refuse_next_edit() return require('diffgemma.next_edit').refuse() end

--- Turns ghost text in the current buffer off, or on again.
function M.toggle() suggest().turn(not suggest().is_on(), vim.api.nvim_get_current_buf()) end

--- Runs an action where the cursor or the selection is, with a preview.
---@param action 'rewrite'|'holes'|'fill'|'docstring'|'hints'|'body'|'instruct'|'fix'
---@param opts? diffgemma.RunOpts
function M.run(action, opts) require('diffgemma.command').act(action, opts) end

--- A component for 'statusline'.
---@return string
function M.statusline() return require('diffgemma.status').statusline() end

return M
