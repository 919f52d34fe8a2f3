-- take.lua PORT COUNT: takes numbers over UDP with LuaSocket, and prints them.
local socket = require "socket"
local udp = assert(socket.udp())
assert(udp:setpeername("127.0.0.1", tonumber(arg[1])))
for n = 1, tonumber(arg[2]) do
    assert(udp:send("take"))
    print(assert(udp:receive()))
    io.flush()
end
print("done")
