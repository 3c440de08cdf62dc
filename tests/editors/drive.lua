-- Neovim, driven by a test: PREFIX, SUFFIX and the server's command come from the environment; facts go out as JSON.
local facts = {}
local midspan = require("midspan")
local ghost = require("midspan.ghost")
midspan.setup({ cmd = vim.json.decode(vim.env.MIDSPAN_CMD), pause = 10 })

local function wait(what, test)
  if not vim.wait(60000, test, 20) then
    io.stdout:write(vim.json.encode({ failed = what, messages = vim.fn.execute("messages") }))
    vim.cmd("cquit 1")
  end
end

local function press(keys)
  vim.api.nvim_feedkeys(vim.api.nvim_replace_termcodes(keys, true, false, true), "mtx!", false)
end

local function text()
  return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n")
end

vim.cmd.edit(vim.env.FILE)
vim.bo.filetype = "python"
wait("a server", function()
  local client = vim.lsp.get_clients({ name = "midspan" })[1]
  return client and client.initialized
end)
vim.cmd("startinsert")
vim.api.nvim_win_set_cursor(0, { 2, 11 })
local before = text()

midspan.ask(1)
wait("a suggestion", function() return ghost.here() end)
facts.suggested = ghost.here()
facts.unchanged = text() == before
facts.word = midspan.accept("word") and text()
if not ghost.here() then
  midspan.ask(1)
  wait("a second suggestion", function() return ghost.here() end)
end
local rest = ghost.here()
facts.all = midspan.accept() and text()
facts.grown = #facts.all - #facts.word == #rest
facts.nothing_left = midspan.accept() == false
local client = vim.lsp.get_clients({ name = "midspan" })[1]
local answer = client:request_sync("midspan/status", vim.empty_dict(), 10000)
facts.counts = answer and answer.result and answer.result.counts
io.stdout:write(vim.json.encode(facts))
vim.cmd("qall!")
