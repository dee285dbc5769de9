"""A firewall that lets the control plane through and nothing else: told with its reason, left in order."""

import socket

from support.deployment import CONFIG
from support.waiting import until


def test_a_link_that_is_down_says_why(new_world) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        daemon = new_world(config=CONFIG.replace("{origin}", where)).start()
        link = until(lambda: (found := daemon.ask("status")["link"])["trouble"] and found, "a reason")
        assert (link["joined"], link["up"]) == (True, False)
        assert "no answer within" in link["trouble"]
        until(lambda: daemon.logged("link_down"), "a line in the log")
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log_path.read_text()
