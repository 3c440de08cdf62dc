-- Ghost text: what would be written at the cursor, drawn there and not yet part of the buffer.
local M = {}
local space = vim.api.nvim_create_namespace("midspan")
local shown -- { buffer, row, column, text }

function M.clear()
  if shown and vim.api.nvim_buf_is_valid(shown.buffer) then
    vim.api.nvim_buf_clear_namespace(shown.buffer, space, 0, -1)
  end
  shown = nil
end

-- Draw a text at a place (row and column from 0, the column in bytes).
function M.show(buffer, row, column, text)
  M.clear()
  if text == "" then
    return
  end
  local lines = vim.split(text, "\n", { plain = true })
  local below = {}
  for number = 2, #lines do
    below[#below + 1] = { { lines[number], "MidspanGhost" } }
  end
  vim.api.nvim_buf_set_extmark(buffer, space, row, column, {
    virt_text = { { lines[1], "MidspanGhost" } },
    virt_text_pos = "inline",
    virt_lines = #below > 0 and below or nil,
    hl_mode = "combine",
  })
  shown = { buffer = buffer, row = row, column = column, text = text }
end

-- What is drawn at the cursor, or nil.
function M.here()
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  if shown and shown.buffer == vim.api.nvim_get_current_buf() and shown.row == row - 1 and shown.column == column then
    return shown.text
  end
end

-- Typing on with what is drawn leaves the rest of it; true if that happened.
function M.typed_on()
  if not shown or shown.buffer ~= vim.api.nvim_get_current_buf() then
    return false
  end
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  if row - 1 ~= shown.row or column <= shown.column then
    return false
  end
  local typed = vim.api.nvim_get_current_line():sub(shown.column + 1, column)
  if not vim.startswith(shown.text, typed) or typed == shown.text then
    return false
  end
  M.show(shown.buffer, shown.row, column, shown.text:sub(#typed + 1))
  return true
end

-- Write what is drawn, or its first `word` or `line`; true if there was something.
function M.accept(what)
  local text = M.here()
  if not text then
    return false
  end
  local part = text
  if what == "word" then
    part = text:match("^%s*[%w_]+") or text:match("^%s*[^%w%s]+") or text
  elseif what == "line" then
    part = text:match("^\n?[^\n]*")
  end
  local at = shown
  M.clear()
  local lines = vim.split(part, "\n", { plain = true })
  vim.api.nvim_buf_set_text(at.buffer, at.row, at.column, at.row, at.column, lines)
  local row = at.row + #lines
  local column = #lines == 1 and at.column + #lines[1] or #lines[#lines]
  vim.api.nvim_win_set_cursor(0, { row, column })
  if part ~= text then
    M.show(at.buffer, row - 1, column, text:sub(#part + 1))
  end
  return true
end

return M
