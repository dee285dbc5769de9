"""`aiohttp` without what nobody uses of it. Loading it is slow: the daemon does so at its start."""

import os
from asyncio import sslproto

# It would read all authorities of this machine, for requests without a context of their own: there are none,
# and what it has without trusts nobody. The extension of a kind of list would bring the C++ library.
_ENVIRONMENT = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull, "FROZENLIST_NO_EXTENSIONS": "1"}
_before = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
os.environ.update(_ENVIRONMENT)
try:
    import aiohttp as aiohttp
finally:
    for _name in _ENVIRONMENT:
        del os.environ[_name]
    os.environ.update(_before)

# Two records of TLS. asyncio would take 256 kB for each connection.
sslproto.SSLProtocol.max_size = 32_768
