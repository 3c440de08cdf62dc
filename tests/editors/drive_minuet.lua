-- minuet, driven by a test: where its server is comes from the environment; facts go out as JSON.
require("minuet").setup({
  provider = "openai_fim_compatible",
  n_completions = 1,
  virtualtext = { auto_trigger_ft = {}, keymap = {} },
  provider_options = {
    openai_fim_compatible = {
      end_point = vim.env.URL .. "/v1/completions", model = "ours", name = "ours",
      api_key = "TERM", stream = true, optional = { max_tokens = 32 },
    },
  },
})
vim.cmd.edit(vim.env.FILE)
vim.api.nvim_win_set_cursor(0, { 2, 11 })
vim.cmd("startinsert!")
vim.defer_fn(function()
  local action = require("minuet.virtualtext").action
  action.next()
  local shown = vim.wait(60000, action.is_visible, 20)
  local facts = { shown = shown, messages = vim.fn.execute("messages") }
  local before = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n")
  if shown then
    action.accept()
    vim.wait(2000, function() return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n") ~= before end, 20)
  end
  facts.text = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n")
  io.stdout:write(vim.json.encode(facts))
  vim.cmd("qall!")
end, 200)
