"""The control socket's answers, whatever they are."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_agent.operate.control_socket import FRAME_MAX_BYTES, ControlSocket, ask


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
