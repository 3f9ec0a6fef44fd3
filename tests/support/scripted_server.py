"""A server that speaks enough of Redis' protocol to be connected to, and refuses chosen commands with chosen words."""

from __future__ import annotations

import asyncio
from types import TracebackType


class ScriptedServer:
    """Answers INFO with a run id, GET with `value`, everything else with OK. Use as an async context manager."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusals: dict[str, list[str]] = {}
        self.num_refused = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def refuse(self, command: str, error: str, *, times: int) -> None:
        """Answer the next `times` calls of a command with an error."""
        self._refusals[command] = [error] * times

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2].decode())
            writer.write(self._answer(words[0].upper()))
        writer.close()

    def _answer(self, command: str) -> bytes:
        if self._refusals.get(command):
            self.num_refused += 1
            return f"-{self._refusals[command].pop()}\r\n".encode()
        if command == "INFO":
            return b"$11\r\nrun_id:abc\n\r\n"
        return b"$5\r\nvalue\r\n" if command == "GET" else b"+OK\r\n"
