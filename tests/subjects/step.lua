-- Adds numbers from stdin: `<number> <value>` is answered `<number total count>` in angle brackets.
local last, total, history = 0, 0, {}
for line in io.lines() do
  local number, value = line:match("^(%d+) (-?%d+)$")
  if number then
    number, value = tonumber(number), tonumber(value)
    if number == last + 1 then
      total = total + value
      history[#history + 1] = { value = value, text = ("%d"):rep(3):format(value, total, #history) }
      last = number
    end
    if number == last then
      io.write(("<%d %d %d>\n"):format(number, total, #history))
      io.flush()
    end
  end
end
print("bye after " .. last)
