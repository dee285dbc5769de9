"""The `[buses.*]` tables: a closed set, distinguished by `kind`."""

from typing import Annotated, Literal

from device_agent.schema import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class _BusTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _BusConfig(_BusTable):
    timeout_s: float = Field(2.0, ge=0.05, le=30, description="Longest time one job may take on this bus.")


class PowerConfig(_BusTable):
    """A GPIO line that switches the supply of what sits on a bus. Wire it so that undriven means on."""

    bus: str = Field(description='A bus of kind "gpio".')
    line: int | str = Field(description="Its offset or name.")
    active_low: bool = Field(False, description="Whether a low level takes the supply away.")
    off_s: float = Field(1.0, ge=0.05, le=60, description="How long the supply is taken away.")


class ClearConfig(_BusTable):
    """The GPIO lines behind an I2C bus, by which a chip that holds SDA is clocked free."""

    bus: str = Field(description='A bus of kind "gpio".')
    scl: int | str = Field(description="Offset or name of the line of SCL.")
    sda: int | str = Field(description="Offset or name of the line of SDA.")


class _RecoverableConfig(_BusConfig):
    """What may be done about a bus that does not come back by being opened again."""

    rebind: bool = Field(False, description="Take the kernel's driver off the hardware and put it back.")
    power: PowerConfig | None = Field(None, description="Switch the devices' supply off and on, as the last.")


class I2cBusConfig(_RecoverableConfig):
    kind: Literal["i2c"]
    device: str = Field(pattern=r"^(/dev/.+|[^/]+)$", description='"/dev/i2c-1", or an adapter\'s name.')
    clear: ClearConfig | None = Field(None, description="Nine clock pulses for a chip that holds SDA low.")


class GpioBusConfig(_BusConfig):
    kind: Literal["gpio"]
    chip: str = Field(
        min_length=1, description='A chip\'s label ("pinctrl-bcm2835") or path ("/dev/gpiochip0").'
    )
    backend: Literal["gpiod", "gpiozero"] = Field("gpiod", description="The library that drives it.")
    pin_factory: Literal["lgpio", "rpigpio", "pigpio", "native"] = Field(
        "lgpio", description='Explicit pin factory, for `backend = "gpiozero"` alone.'
    )
    pwm: dict[str, Annotated[str, Field(pattern=r"^[\w.:,@-]+/\d+$")]] = Field(
        {},
        description="Lines that the kernel's PWM drives, with its channel by device, which stays, or number: "
        '{ 18 = "1f00098000.pwm/2" }, { 18 = "pwmchip0/0" }.',
    )


class UsbIdentity(_BusTable):
    """A USB adapter, by its identity instead of the number of its node."""

    vid: int = Field(ge=0, le=0xFFFF, description="The maker's number.")
    pid: int = Field(ge=0, le=0xFFFF, description="The product's number.")
    serial: str | None = Field(None, description="Needed when two adapters share vid and pid.")
    location: str | None = Field(None, description='Topology such as "1-1.3", for adapters without a serial.')


class Rs485Config(_BusTable):
    """An adapter whose direction is switched by RTS."""

    rts_on_send: bool = Field(True, description="The level of RTS while sending; the other one else.")
    delay_before_s: float = Field(0.0, ge=0, le=0.1, description="From switching to the first bit.")
    delay_after_s: float = Field(0.0, ge=0, le=0.1, description="From the last bit to switching back.")


class SerialBusConfig(_RecoverableConfig):
    kind: Literal["serial"]
    port: str | UsbIdentity = Field(description='"/dev/serial/by-id/…", or a table with vid, pid and serial.')
    baud: int = Field(9600, ge=50, le=4_000_000, description="Bits a second.")
    data_bits: Literal[5, 6, 7, 8] = Field(8, description="Of a character.")
    parity: Literal["none", "even", "odd", "mark", "space"] = Field("none", description="Of a character.")
    stop_bits: float = Field(1, ge=1, le=2, multiple_of=0.5, description="Of a character.")
    flow_control: Literal["none", "rts-cts", "xon-xoff", "dsr-dtr"] = Field(
        "none", description="What holds the sender back."
    )
    dtr: bool = Field(True, description="Level of DTR while open. Linux raises it for a moment all the same.")
    rts: bool = Field(True, description="Level of RTS while open.")
    rs485: bool | Rs485Config = Field(
        False, description="Switch the direction by RTS: by the kernel's driver where it can, else from here."
    )

    @model_validator(mode="after")
    def _one_use_of_a_line(self) -> "SerialBusConfig":
        if self.rs485 and self.flow_control == "rts-cts":
            raise ValueError('`rs485` switches RTS, which `flow_control = "rts-cts"` uses too')
        return self


def _host(value: str) -> str:
    _, colon, port = value.partition(":")
    if set("/@[") & set(value) or (colon and port.isdigit()):
        raise ValueError(
            'must be a name or an address alone: write host = "broker", and port, username, tls beside it'
        )
    return value


class MqttBusConfig(_BusConfig):
    kind: Literal["mqtt"]
    host: Annotated[str, Field(min_length=1, pattern=r"^\S+$"), AfterValidator(_host)] = Field(
        description="Name or address of the broker."
    )
    port: int = Field(1883, ge=1, le=65_535, description="Its port; with TLS usually 8883.")
    username: str | None = Field(None, description="Where the broker asks for one.")
    password_file: str | None = Field(None, description="A file that only its owner may read.")
    tls: bool = Field(False, description="Whether it speaks TLS.")
    ca_file: str | None = Field(
        None, description="Who signed its certificate, where that is no public authority."
    )
    certificate_file: str | None = Field(None, description="Of this client, for a broker that asks for one.")
    key_file: str | None = Field(None, description="Its private key; a file that only its owner may read.")
    client_id: str | None = Field(None, max_length=65, description="How the broker knows this client.")
    keepalive_s: int = Field(15, ge=5, le=3600, description="A broker that says nothing for so long is lost.")

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> "MqttBusConfig":
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ValueError("`certificate_file` and `key_file` go together")
        if self.certificate_file is not None and not self.tls:
            raise ValueError("`certificate_file` is for TLS: set `tls = true`")
        return self


class SpiBusConfig(_RecoverableConfig):
    """One chip select. The chip's own limit holds besides `max_speed_hz`."""

    kind: Literal["spi"]
    device: str = Field(pattern=r"^(/dev/.+|[^/]+)$", description='"/dev/spidev0.0".')
    max_speed_hz: int = Field(
        1_000_000, ge=10_000, le=125_000_000, description="Clock; a chip's own limit holds besides."
    )
    mode: Literal[0, 1, 2, 3] = Field(0, description="Polarity and phase of the clock.")


class OneWireBusConfig(_RecoverableConfig):
    kind: Literal["w1"]
    directory: str = Field(
        "/sys/bus/w1/devices", pattern="^/", description="Where the kernel lists 1-Wire devices."
    )


BusConfig = Annotated[
    I2cBusConfig | GpioBusConfig | SerialBusConfig | MqttBusConfig | SpiBusConfig | OneWireBusConfig,
    Field(discriminator="kind"),
]
