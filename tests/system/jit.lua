-- Hot loops that LuaJIT compiles, throws away and compiles again: code that rewrites itself.
local function collatz(n)
  local steps = 0
  while n ~= 1 do
    n = n % 2 == 0 and n / 2 or 3 * n + 1
    steps = steps + 1
  end
  return steps
end
local sum = 0
for round = 1, 40 do
  local function kernel(x) return (x * 31 + round) % 65521 end
  local value = 1
  for i = 1, 200000 do value = kernel(value) end
  for i = 1, 2000 do sum = sum + collatz(i) end
  sum = sum + value
  jit.flush()
end
print(string.format("jit %.0f", sum))
