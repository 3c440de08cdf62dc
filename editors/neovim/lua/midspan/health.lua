-- :checkhealth midspan
local M = {}

function M.check()
  local options = require("midspan").options
  vim.health.start("midspan")
  if vim.fn.has("nvim-0.10") == 1 then
    vim.health.ok("Neovim " .. tostring(vim.version()))
  else
    vim.health.error("Neovim 0.10 or later is needed")
  end
  if vim.fn.executable(options.cmd[1]) == 1 then
    vim.health.ok(table.concat(options.cmd, " "))
  else
    vim.health.error(options.cmd[1] .. " cannot be run; install it with pip, or give setup() its path in `cmd`")
  end
  local clients = vim.lsp.get_clients({ name = "midspan" })
  if #clients > 0 then
    vim.health.ok(#clients .. " server(s) run")
  else
    vim.health.info("no server runs yet; one is started with the first file that has a filetype")
  end
end

return M
