"""The control socket's answers, whatever they are."""

import asyncio
import os
import pwd
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from device_agent.operate.control_socket import (
    CLIENTS_MAX,
    FRAME_MAX_BYTES,
    QUESTIONS_MAX,
    ControlSocket,
    ask,
    asking_user,
)
from support.waiting import LIMIT_S, until_async


async def test_what_cannot_be_carried_is_said(tmp_path: Path) -> None:
    """Not taken for a daemon that does not run: the command line would go for the hardware itself."""

    async def handler(question: Mapping[str, Any]) -> Any:
        return b"x" * (FRAME_MAX_BYTES + 1)

    socket = ControlSocket(tmp_path / "control.sock", {"do": handler})
    await socket.open()
    try:
        answer = await asyncio.to_thread(ask, tmp_path / "control.sock", {"op": "do"}, 10.0)
    finally:
        await socket.close()
    assert answer["ok"] is False
    assert answer["error"]["code"] == "internal"
    assert "cannot be carried by the control socket" in answer["error"]["message"]


async def test_idle_and_waiting_clients_keep_no_stop_out(tmp_path: Path) -> None:
    path, go_on, waiting = tmp_path / "control.sock", asyncio.Event(), [0]

    async def slow(question: Mapping[str, Any]) -> Any:
        waiting[0] += 1
        await go_on.wait()
        return "read"

    async def estop(question: Mapping[str, Any]) -> Any:
        return "stopped"

    socket = ControlSocket(path, {"read": slow, "estop": estop})
    await socket.open()
    idle = [await asyncio.open_unix_connection(path) for _ in range(3 * CLIENTS_MAX)]
    threads, loop = ThreadPoolExecutor(QUESTIONS_MAX), asyncio.get_running_loop()
    try:
        asked = [
            loop.run_in_executor(threads, ask, path, {"op": "read"}, LIMIT_S) for _ in range(QUESTIONS_MAX)
        ]
        await until_async(lambda: waiting[0] == QUESTIONS_MAX)
        more = await asyncio.to_thread(ask, path, {"op": "read"}, LIMIT_S)
        assert more["error"]["code"] == "too_soon"
        assert (await asyncio.to_thread(ask, path, {"op": "estop"}, LIMIT_S))["result"] == "stopped"
        go_on.set()
        assert [answer["result"] for answer in await asyncio.gather(*asked)] == ["read"] * QUESTIONS_MAX
    finally:
        go_on.set()
        for _, writer in idle:
            writer.close()
        await socket.close()
        threads.shutdown()


async def test_it_is_known_which_user_of_the_machine_asks(tmp_path: Path) -> None:
    async def who(question: Mapping[str, Any]) -> Any:
        return asking_user()

    socket = ControlSocket(tmp_path / "control.sock", {"who": who})
    await socket.open()
    try:
        answer = await asyncio.to_thread(ask, tmp_path / "control.sock", {"op": "who"}, LIMIT_S)
    finally:
        await socket.close()
    assert answer["result"] == pwd.getpwuid(os.getuid()).pw_name
    assert asking_user() == ""
