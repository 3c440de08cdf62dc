-- Suggestions of `midspan lsp` as ghost text.
--
--   require("midspan").setup({ cmd = { "midspan", "lsp", "runs/ours" } })
--
-- In insert mode <Tab> takes a suggestion, <M-Right> its first word, <M-Down> its first line, <C-]> none of it.
local ghost = require("midspan.ghost")
local M = {}

M.options = {
  cmd = { "midspan", "lsp" },
  filetypes = nil, -- every one; or a list
  pause = 60, -- milliseconds without a key until the server is asked
  keys = { accept = "<Tab>", word = "<M-Right>", line = "<M-Down>", dismiss = "<C-]>" },
}

local timer = vim.uv.new_timer()
local asked -- { client, id } of the request under way
local on = true

local function client_of(buffer)
  return vim.lsp.get_clients({ name = "midspan", bufnr = buffer })[1]
end

local function request(client, method, params, handler, buffer)
  if vim.fn.has("nvim-0.11") == 1 then
    return client:request(method, params, handler, buffer)
  end
  return client.request(method, params, handler, buffer)
end

local function notify(client, method, params)
  if vim.fn.has("nvim-0.11") == 1 then
    return client:notify(method, params)
  end
  return client.notify(method, params)
end

local function take_back()
  if asked then
    notify(asked.client, "$/cancelRequest", { id = asked.id })
    asked = nil
  end
end

-- Ask for a suggestion at the cursor; `kind` is 1 for one that was asked for, 2 for one that comes by itself.
function M.ask(kind)
  take_back()
  local buffer = vim.api.nvim_get_current_buf()
  local client = client_of(buffer)
  if not client then
    return
  end
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = kind or 2 }
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  local tick = vim.api.nvim_buf_get_changedtick(buffer)
  local _, id = request(client, "textDocument/inlineCompletion", params, function(failure, result)
    asked = nil
    local item = not failure and result and (result.items or result)[1]
    local place = vim.api.nvim_get_current_buf() == buffer and vim.api.nvim_win_get_cursor(0)
    if not item or not place or place[1] ~= row or place[2] ~= column then
      return
    end
    if vim.api.nvim_buf_get_changedtick(buffer) == tick then
      ghost.show(buffer, row - 1, column, item.insertText)
      notify(client, "textDocument/didShowCompletion", { item = item })
    end
  end, buffer)
  asked = id and { client = client, id = id }
end

local function typed()
  if not on or ghost.typed_on() then
    return
  end
  ghost.clear()
  take_back()
  timer:start(M.options.pause, 0, vim.schedule_wrap(function()
    if vim.api.nvim_get_mode().mode:sub(1, 1) == "i" then
      M.ask(2)
    end
  end))
end

-- Take a suggestion ("all", "word", "line"); false if there is none.
function M.accept(what)
  local client = client_of(0)
  local found = ghost.accept(what or "all")
  if found and client then
    if what == "all" or not what then
      request(client, "workspace/executeCommand", { command = "midspan.accept" }, function() end)
    else
      notify(client, "textDocument/didPartiallyAcceptCompletion", {})
    end
  end
  return found
end

local function map(key, what)
  vim.keymap.set("i", key, function()
    local done = what == "dismiss" and (ghost.here() ~= nil)
    if done then
      take_back()
      vim.schedule(ghost.clear)
      return ""
    end
    if what ~= "dismiss" and ghost.here() then
      vim.schedule(function()
        M.accept(what)
      end)
      return ""
    end
    return key
  end, { expr = true, desc = "Midspan: " .. what })
end

function M.command(name)
  local client = client_of(0)
  if name == "on" or name == "off" then
    on = name == "on"
    ghost.clear()
  elseif name == "ask" then
    M.ask(1)
  elseif not client then
    vim.notify("Midspan: no server runs for this buffer; see :checkhealth midspan", vim.log.levels.WARN)
  elseif name == "status" then
    request(client, "midspan/status", {}, function(_, result)
      vim.notify("Midspan: " .. vim.inspect(result))
    end)
  else
    vim.lsp.buf.code_action({
      apply = true,
      filter = function(action)
        return action.command and action.command.command == "midspan." .. name
      end,
    })
  end
end

local function attach(buffer)
  local kinds = M.options.filetypes
  local kind = vim.bo[buffer].filetype
  if vim.bo[buffer].buftype ~= "" or kind == "" or (kinds and not vim.tbl_contains(kinds, kind)) then
    return
  end
  local root = vim.fs.root and vim.fs.root(buffer, { ".git" }) or nil
  vim.lsp.start({ name = "midspan", cmd = M.options.cmd, root_dir = root }, { bufnr = buffer, silent = true })
end

function M.setup(options)
  M.options = vim.tbl_deep_extend("force", M.options, options or {})
  local group = vim.api.nvim_create_augroup("midspan", {})
  vim.api.nvim_create_autocmd("FileType", {
    group = group,
    callback = function(event)
      attach(event.buf)
    end,
  })
  vim.api.nvim_create_autocmd({ "TextChangedI", "CursorMovedI", "InsertEnter" }, { group = group, callback = typed })
  vim.api.nvim_create_autocmd({ "InsertLeave", "BufLeave" }, {
    group = group,
    callback = function()
      timer:stop()
      take_back()
      ghost.clear()
    end,
  })
  for what, key in pairs({
    all = M.options.keys.accept,
    word = M.options.keys.word,
    line = M.options.keys.line,
    dismiss = M.options.keys.dismiss,
  }) do
    if key then
      map(key, what)
    end
  end
end

return M
