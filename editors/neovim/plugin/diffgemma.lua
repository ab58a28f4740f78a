--- Ghost text in the server's buffers, and the command :Diffgemma. All else waits for its use.
if vim.g.loaded_diffgemma then
  return
end
vim.g.loaded_diffgemma = true

if vim.fn.has('nvim-0.12') == 0 then
  vim.notify('diffgemma: Neovim 0.12 or newer is needed', vim.log.levels.ERROR)
  return
end

local group = vim.api.nvim_create_augroup('diffgemma', {})

local function on(event, name)
  vim.api.nvim_create_autocmd(event, {
    group = group,
    callback = function(args) require('diffgemma.server')[name](args) end,
  })
end

on('FileType', 'check')
on('InsertEnter', 'check') -- the server may have been enabled after the file was opened
on('LspAttach', 'attached')
on('LspDetach', 'detached')

vim.api.nvim_create_user_command(
  'Diffgemma',
  function(command) require('diffgemma.command').run(command) end,
  {
    nargs = '*',
    range = true,
    bang = true,
    desc = 'Ask the diffgemma server for something',
    complete = function(start) return require('diffgemma.command').complete(start) end,
  }
)
