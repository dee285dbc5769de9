"""Tables of a configuration, as text."""

I2C = '[buses.i]\nkind = "i2c"\ndevice = "/dev/i2c-1"\n'
PINS = '[buses.p]\nkind = "gpio"\nchip = "pinctrl-bcm2835"\n'
PORT = '[buses.s]\nkind = "serial"\nport = "/dev/ttyUSB0"\n'


def device(name: str, driver: str, **options: object) -> str:
    lines = [
        f"{key} = {value if isinstance(value, str) else str(value).lower()}" for key, value in options.items()
    ]
    return "\n".join((f"[devices.{name}]", f'driver = "{driver}"', *lines, ""))


def relay(name: str, line: object = 4, bus: str = '"p"', **options: object) -> str:
    return device(name, "relay", bus=bus, line=line, **{"safe": False, **options})


THERMO = I2C + device("t", "thermo", bus='"i"')
CONSOLE = PORT + device("c", "console", bus='"s"')
