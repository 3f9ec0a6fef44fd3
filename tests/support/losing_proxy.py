"""A TCP proxy before Redis that can lose a reply: it forwards a request, lets Redis execute it, and cuts the connection."""

from __future__ import annotations

import asyncio
from types import TracebackType


class LosingProxy:
    """Forwards bytes both ways. After `lose_reply_to(word)` the next request that holds `word` is forwarded and executed,
    and its connection is cut before the first byte of the reply. Use as an async context manager."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._word: bytes | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_lost = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose_reply_to(self, word: str) -> None:
        self._word = word.encode()

    async def __aenter__(self) -> LosingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        redis_in, redis_out = await asyncio.open_connection("127.0.0.1", self._target_port)
        losing = asyncio.Event()
        answers = asyncio.ensure_future(self._answer(redis_in, client_out, losing))
        try:
            while request := await client_in.read(1 << 20):
                if self._word is not None and self._word in request:
                    self._word = None
                    losing.set()
                redis_out.write(request)
                await redis_out.drain()
        except ConnectionError:
            pass  # the client's way of ending
        finally:
            answers.cancel()
            client_out.transport.abort()
            redis_out.transport.abort()

    async def _answer(
        self, redis_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while reply := await redis_in.read(1 << 20):
            if losing.is_set():  # Redis has executed the request: its reply is here
                self.num_lost += 1
                client_out.transport.abort()
                return
            client_out.write(reply)
