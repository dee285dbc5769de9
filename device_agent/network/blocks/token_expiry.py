"""When a messaging token ends: a token is a map in CBOR, in Base64."""

import base64

import cbor2


def expires_ms(token: str) -> int | None:
    """Epoch milliseconds of the network's clock; None if it does not say."""
    try:
        content = dict(cbor2.loads(base64.b64decode(token, altchars=b"-_")))
        said = {k.decode(errors="replace") if isinstance(k, bytes) else k: v for k, v in content.items()}
        return (int(said["t"]) + int(said["ttl"]) * 60) * 1000
    except (cbor2.CBORDecodeError, KeyError, TypeError, ValueError, EOFError, OverflowError, RecursionError):
        return None  # used as it is and renewed on the first 403
