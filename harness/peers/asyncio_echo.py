#!/usr/bin/env python3
"""Echo on Python's asyncio, with a protocol, which needs no coroutine for each connection."""

import asyncio
import platform
import socket
import sys

BACKLOG = 4096


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        # asyncio sets TCP_NODELAY itself since Python 3.6.

    def data_received(self, data):
        self.transport.write(data)

    # If the client does not read, the server stops reading, so its buffer stays bounded.
    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def main(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sock=listener, backlog=BACKLOG)
    print(f"ready on port {port}: {version()}", flush=True)
    await server.serve_forever()


def version():
    return f"Python {platform.python_version()} asyncio"


if sys.argv[1:] == ["--version"]:
    print(version())
elif len(sys.argv) == 3 and sys.argv[1] == "--port":
    asyncio.run(main(int(sys.argv[2])))
else:
    sys.exit("give --port N, or --version")
