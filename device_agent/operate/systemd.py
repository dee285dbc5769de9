"""Telling the service manager: ready, stopping, alive (sd_notify's protocol: one datagram a message)."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Does nothing where no service manager listens."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the abstract namespace's leading zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self.ready = False
        """Whether `READY=1` was told, and not `STOPPING=1` since."""
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(watchdog_us) / 1_000_000 if watchdog_us.isdigit() and for_us else None

    def status(self, text: str) -> None:
        """Show this in `systemctl status`; sent when it changes."""
        if text != self._status:
            self._status = text
            self.tell(f"STATUS={text}")

    def tell(self, message: str) -> None:
        """Send `READY=1`, `WATCHDOG=1`, `STATUS=…`. A service manager that is gone is not our trouble."""
        if message in ("READY=1", "STOPPING=1"):
            self.ready = message == "READY=1"
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(message.encode(), self._address)
        except OSError:
            return
