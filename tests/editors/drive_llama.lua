-- llama.vim, driven by a test: where its server is comes from the environment; facts go out as JSON.
vim.g.llama_config = { endpoint_fim = vim.env.URL .. "/infill", auto_fim = false, show_info = 0, ring_n_chunks = 4 }
vim.cmd("runtime plugin/llama.vim")
vim.cmd.edit(vim.env.FILE)
vim.cmd("call llama#init()")
vim.api.nvim_win_set_cursor(0, { 2, 11 })
vim.cmd("startinsert!")

local function ghost()
  local found = {}
  local space = vim.api.nvim_create_namespace("vt_fim")
  for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })) do
    for _, piece in ipairs(mark[4].virt_text or {}) do table.insert(found, piece[1]) end
    for _, line in ipairs(mark[4].virt_lines or {}) do table.insert(found, "\n" .. line[1][1]) end
  end
  return table.concat(found)
end

-- In insert mode, which begins once this file has been read.
vim.defer_fn(function()
  vim.cmd("call llama#fim(col('.') - 1, line('.'), v:false, [], v:false)")
  local shown = vim.wait(60000, function() return ghost() ~= "" end, 20)
  local facts = { shown = shown, ghost = ghost(), messages = vim.fn.execute("messages") }
  if shown then vim.cmd("call llama#fim_accept('full')") end
  facts.text = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n")
  io.stdout:write(vim.json.encode(facts))
  vim.cmd("qall!")
end, 200)
