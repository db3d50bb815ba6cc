# SPDX-License-Identifier: Apache-2.0
"""An asyncio server whose requests, each with a function of its own, all wait at once. Its arguments: what it serves
with, "aiohttp" or "streams", and if it is to use uvloop, "uvloop"."""

import asyncio
import json
import sys
import time

import markers
import swprof

swprof.init("tasks", "one")
MARKERS = markers.make("async def marker_N(wait): return await wait()")


async def leaf():
    await asyncio.sleep(0.3)


async def middle():
    await leaf()


async def numbers():
    for n in range(2):
        await asyncio.sleep(0.1)
        yield n


async def wait():
    waits = []
    begin = time.monotonic()
    await middle()
    waits.append(1000 * (time.monotonic() - begin))
    markers.spin(2)
    begin = time.monotonic()
    async for _ in numbers():
        waits.append(1000 * (time.monotonic() - begin))
        begin = time.monotonic()
    markers.spin(2)
    await asyncio.sleep(0)
    return waits


async def answer(number):
    if number == "":
        return {"watched": swprof.watched("/wait")}
    if number == "hook":
        return {"hook": repr(vars(asyncio.get_running_loop()).get("call_soon"))}
    begin = time.time()
    with swprof.span("/wait") as span:
        waits = await MARKERS[int(number)](wait)
        return {"waits": waits, "segment": span.segment_id, "watched": span.watched, "start": 1000 * begin,
                "stop": 1000 * time.time()}


async def serve_stream(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    body = json.dumps(await answer(head.split()[1].decode().lstrip("/"))).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def serve_streams():
    server = await asyncio.start_server(serve_stream, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def serve_aiohttp():
    from aiohttp import web

    async def handle(request):
        return web.json_response(await answer(request.match_info["number"]))

    application = web.Application()
    application.router.add_get("/{number:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


async def main():
    server, port = await (serve_aiohttp if "aiohttp" in sys.argv else serve_streams)()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    del server


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop
        uvloop.install()
    asyncio.run(main())
