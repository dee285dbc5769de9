"""TLS on a board whose own clock may be wrong: certificates are judged by the time that the daemon knows.

A board without a battery starts in 1970 or at its last shutdown, and no certificate is valid then. Who may be
spoken to is checked as ever (chain, name); only the time comes from `Clock`: a clock chip, or the network.
Where nobody knows it yet, `Http.know_time` asks two hosts without sending any secret: the first one's `Date`
must lie in its own certificate's validity and not before this release, and only serves to check the second
one's certificate, whose answer is the time. Who wants to deceive the board needs keys of certificates for
both names. While the machine's own clock counts, nothing differs from any other program.
"""

import os
import ssl
import sys
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from device_agent.clock import Clock, undated

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h), which the module `ssl` does not name.
NO_CHECK_TIME = 0x200000


class _CheckedObject(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        assert isinstance(self.context, ClockContext)
        self.context.check(self.getpeercert() or {})


class ClockContext(ssl.SSLContext):
    """As `ssl.create_default_context`, with the time of a `Clock`. Make it with `make`."""

    sslobject_class = _CheckedObject
    clock: Clock
    hint_ms: float | None = None
    """What `clock` may show, counted from its monotonic clock, while nobody knows it."""
    hinting: bool = False
    """Any time will do: no secret goes through this context."""
    certificate: Any = None
    """Of the last host."""

    @classmethod
    def make(cls, clock: Clock, *, hinting: bool = False) -> "ClockContext":
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.clock, context.hinting = clock, hinting
        _trust(context)
        context.set_alpn_protocols(["http/1.1"])
        if sys.version_info >= (3, 13):  # as its default context has them
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """The machine's clock counts where it is believed; the library then checks the whole chain by it."""
        flags = self.verify_flags & ~NO_CHECK_TIME
        self.verify_flags = ssl.VerifyFlags(flags if self._by_machine else flags | NO_CHECK_TIME)
        return super().wrap_bio(*args, **options)

    @property
    def _by_machine(self) -> bool:
        return self.clock.source == "system" and not self.hinting

    def check(self, certificate: Any) -> None:
        """Raises SSLCertVerificationError for a certificate that is not valid now."""
        self.certificate = certificate
        if self._by_machine or self.hinting:
            return
        if self.clock.is_set():
            now_ms = float(self.clock.now_ms())
        elif self.hint_ms is not None:
            now_ms = self.hint_ms + self.clock.monotonic_s() * 1000
        else:
            raise ssl.SSLCertVerificationError("the time is not known yet: no certificate can be judged")
        if not valid(certificate, now_ms):
            raise ssl.SSLCertVerificationError(f"the certificate is not valid at {now_ms / 1000:.0f}")

    def take_hint(self, date: str | None, certificate: Any) -> bool:
        """A host's `Date`; False for one that its certificate, or the age of this release, contradicts."""
        try:
            hint_ms = parsedate_to_datetime(date or "").timestamp() * 1000
        except (TypeError, ValueError, OverflowError):
            return False
        if undated(hint_ms) or not valid(certificate, hint_ms):
            return False
        self.hint_ms = hint_ms - self.clock.monotonic_s() * 1000
        return True


def _trust(context: ssl.SSLContext) -> None:
    """The machine's authorities. Read one by one when they are needed, where they have files of their own
    (`c_rehash`): all at once they take 1.3 MB."""
    paths = ssl.get_default_verify_paths()
    if (
        paths.capath
        and paths.openssl_cafile_env not in os.environ
        and any(Path(paths.capath).glob("????????.0"))
    ):
        context.load_verify_locations(capath=paths.capath)
    else:
        context.load_default_certs()


def valid(certificate: Any, at_ms: float) -> bool:
    """Whether a certificate (`getpeercert`) is valid at that time; epoch milliseconds."""
    try:
        begin_s, end_s = (ssl.cert_time_to_seconds(certificate[name]) for name in ("notBefore", "notAfter"))
    except (KeyError, TypeError, ValueError):
        return False
    return begin_s <= at_ms / 1000 <= end_s
