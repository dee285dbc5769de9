"""[page]: a page in the browser, for whoever stands beside the device."""

import ipaddress
import re

from device_agent.config.types import LocalPath, Table
from device_agent.schema import Field, model_validator

_LISTEN = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>\d{1,5})")


class PageConfig(Table):
    """[page]: off unless `listen` is given. What may be driven on it, `local:page` in [access] says."""

    listen: str | None = Field(
        None,
        description='Address and port, such as "127.0.0.1:8686"; what others reach needs a password.',
    )
    hosts: tuple[str, ...] = Field(
        (),
        max_length=16,
        strict=False,
        description="Further names by which browsers reach it, such as that of a proxy.",
    )
    password_file: LocalPath | None = Field(
        None, description="File with the password; needed where others reach it."
    )
    certificate_file: LocalPath | None = Field(None, description="For TLS.")
    key_file: LocalPath | None = Field(None, description="The certificate's private key.")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`."""
        match = _LISTEN.fullmatch(self.listen or "")
        assert match is not None
        return match["six"] or match["host"], int(match["port"])

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine reaches it."""
        host = self.address[0]
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @model_validator(mode="after")
    def _is_guarded(self) -> "PageConfig":
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ValueError("`certificate_file` and `key_file` go together")
        if self.listen is None:
            return self
        match = _LISTEN.fullmatch(self.listen)
        if match is None or not 0 < int(match["port"]) < 65_536:
            raise ValueError(f'`listen` is {self.listen!r}: write an address and a port, "127.0.0.1:8686"')
        if not self.is_local and self.password_file is None:
            raise ValueError(f"`listen` is {self.listen!r}, which others reach: give a `password_file`")
        return self
