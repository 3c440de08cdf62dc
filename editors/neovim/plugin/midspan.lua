-- Neovim 0.10 and later. Nothing happens until require("midspan").setup() is called.
vim.api.nvim_set_hl(0, "MidspanGhost", { default = true, link = "Comment" })
vim.api.nvim_create_user_command("Midspan", function(given)
  require("midspan").command(given.args)
end, {
  nargs = 1,
  complete = function()
    return { "ask", "docstring", "explain", "off", "on", "status", "types" }
  end,
})
