"""Counters over TCP with asyncio: `<key>` is answered with how often it was named: counters_asyncio.py PORT

Each key has a task of its own that hands out its numbers; a timer runs besides.
"""
import asyncio
import sys

queues = {}
ticks = 0


async def counter(queue):
    count = 0
    while True:
        answer = await queue.get()
        count += 1
        await asyncio.sleep(0)
        if not answer.done():
            answer.set_result(count)


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            key = line.strip()
            if key not in queues:
                queues[key] = asyncio.Queue()
                asyncio.create_task(counter(queues[key]), name=key.decode())
            answer = asyncio.get_running_loop().create_future()
            await queues[key].put(answer)
            writer.write(b"%d\n" % await answer)
            await writer.drain()
    except OSError:
        pass  # the client is gone
    writer.close()


async def main():
    global ticks
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        while True:
            await asyncio.sleep(0.02)
            ticks += 1


asyncio.run(main())
