"""asyncio on both sides: async_pair.py serve PORT | async_pair.py ask PORT COUNT: ten clients in one program, connections
made without blocking, lines both ways. The server's numbers come without gaps."""
import asyncio
import sys

port, number = int(sys.argv[2]), 0


async def serve(reader, writer):
    global number
    while line := await reader.readline():
        number += 1
        writer.write(b"%d %s" % (number, line))
        await writer.drain()
    writer.close()


async def ask(name, count):
    got = []
    for n in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in ("a", "b"):
            request = f"{name} {n} {part}\n"
            writer.write(request.encode())
            answer = (await reader.readline()).decode()
            value, _, echo = answer.partition(" ")
            assert echo == request, (request, answer)
            got.append(int(value))
        writer.close()
        await writer.wait_closed()
    return got


async def main():
    if sys.argv[1] == "serve":
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        await server.serve_forever()
    first = await ask("first", 1)
    print("begun", flush=True)
    lists = [first] + await asyncio.gather(*(ask(name, int(sys.argv[3])) for name in range(10)))
    numbers = sorted(n for got in lists for n in got)
    print("whole" if numbers == list(range(1, len(numbers) + 1)) else numbers, len(numbers), flush=True)


asyncio.run(main())
