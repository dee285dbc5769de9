"""The rig file: what is wired to this machine, what the test can do to it. See `rig.toml.example`."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Door(_Table):
    """A line that the agent senses. The test drives it by a wire, or by the file of a simulated chip."""

    sensed: int | str = Field(alias="in")
    driven: int | str | None = Field(None, alias="out")
    pull_file: Path | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Door":
        if (self.driven is None) == (self.pull_file is None):
            raise ValueError("needs `out`, the line wired to it, or `pull_file`; one of them")
        return self


class Relay(_Table):
    """A line that the agent drives. The test watches it by a wire, or in the file of a simulated chip."""

    driven: int | str = Field(alias="out")
    watched: int | str | None = Field(None, alias="in")
    value_file: Path | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Relay":
        if (self.watched is None) == (self.value_file is None):
            raise ValueError("needs `in`, the line wired to it, or `value_file`; one of them")
        return self


class Gpio(_Table):
    chip: str
    door: Door | None = None
    relay: Relay | None = None


class Sensor(_Table):
    """An I2C sensor; the commands go to the shell."""

    device: str
    driver: str = "bme280"
    address: int
    unplug: str | None = None
    replug: str | None = None
    hang: str | None = None
    release: str | None = None

    @model_validator(mode="after")
    def _in_pairs(self) -> "Sensor":
        for fault, remedy in (("unplug", "replug"), ("hang", "release")):
            if (getattr(self, fault) is None) != (getattr(self, remedy) is None):
                raise ValueError(f"`{fault}` and `{remedy}` come together")
        return self


class Serial(_Table):
    """The agent's port, and the one crossed to it. "pty": the test makes both ends."""

    port: str
    far_end: str | None = None
    baud: int = 9600

    @model_validator(mode="after")
    def _far_end(self) -> "Serial":
        if (self.far_end is None) != (self.port == "pty"):
            raise ValueError('needs `far_end`, the port crossed to it; or port = "pty" and none')
        return self


class RigFile(_Table):
    """The whole. `prepare` is a command for the shell, before each file of scenarios."""

    name: str = "rig"
    prepare: str | None = None
    gpio: Gpio | None = None
    sensor: Sensor | None = None
    serial: Serial | None = None


def load(path: Path) -> RigFile:
    """Raises ValueError with all that is wrong."""
    try:
        return RigFile.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{path}: {faults}") from error
