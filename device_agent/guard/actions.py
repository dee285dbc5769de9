"""What the guard can do: set a line, write bytes, write to an I2C chip, publish. Blocking calls with limits.

Each takes an action as `device_agent.bus.recipe.Recipe` describes it and raises OSError if it failed.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    ActionData = dict[str, Any]

# linux/gpio.h: GPIO_V2_LINE_SET_VALUES_IOCTL; its two 64-bit words are the values, and of which lines.
LINE_SET_VALUES = 0xC010_B40F
LINE_GET_VALUES = 0xC010_B40E
# GPIO_V2_GET_LINE_IOCTL and its struct gpio_v2_line_request: offsets[64], consumer[32], the configuration
# (flags, number of attributes, ten attributes), number of lines, size of the event buffer, the descriptor.
GET_LINE = 0xC250_B407
LINE_REQUEST = "=I252s32sQI20s24s216sII20si"
FLAG_OUTPUT = 1 << 3
# linux/i2c-dev.h, linux/i2c.h
I2C_SLAVE = 0x0703
I2C_SMBUS = 0x0720
I2C_SMBUS_BYTE, I2C_SMBUS_BYTE_DATA, I2C_SMBUS_I2C_BLOCK_DATA = 1, 2, 8
SMBUS_BLOCK_MAX = 32

# asm-generic/termios.h: wait until all is sent, set and clear lines of the modem; RTS among them.
TCSBRK, TIOCMBIS, TIOCMBIC, TIOCM_RTS = 0x5409, 0x5416, 0x5417, 0x004

# asm-generic/ioctls.h: set the port at once, by a struct termios2.
TCSETS2 = 0x402C542B

# A simulated board answers what a line's level is within this, or it hangs.
LEVEL_LIMIT_S = 0.5
# A far end that takes no bytes, or gives no answer, is tried again after this.
BYTES_LIMIT_S = 2.0


def carry_out(action: ActionData, fd: int) -> int:
    """Do one action; `fd` is the guard's own descriptor for it, -1 where it has none. Raises OSError.

    Returns the descriptor to keep from now on.
    """
    kind = action["kind"]
    if kind in ("line", "claim"):
        if fd < 0:
            flags = action.get("flags", FLAG_OUTPUT)
            return claim_line(action["path"], action["offset"], action["active"], flags)
        set_line(fd, action["active"])
    elif kind == "bytes":
        if fd < 0:
            return write_anew(action)
        write_bytes(fd, action["steps"], action["answer"])
    elif kind == "i2c":
        write_i2c(action["path"], action["steps"])
    elif kind == "smbus":
        write_smbus(action["path"], action["steps"])
    else:
        from device_agent.guard import mqtt

        mqtt.publish(action)
    return fd


def is_at(action: ActionData, fd: int) -> bool:
    """Whether a watched line is at the level of this `level` action. Raises OSError."""
    if "steps" in action:
        answer: bytes = action["answer"]
        return _asked(fd, action["steps"][0], len(answer)) == answer
    values = bytearray(struct.pack("=QQ", 0, 1))
    fcntl.ioctl(fd, LINE_GET_VALUES, values, True)
    return bool(values[0] & 1) is action["active"]


def _asked(fd: int, question: bytes, size: int) -> bytes:
    os.write(fd, question)
    return _received(fd, size, LEVEL_LIMIT_S)


def _received(fd: int, size: int, limit_s: float) -> bytes:
    got = b""
    while len(got) < size:
        _wait(fd, select.POLLIN, limit_s)
        part = os.read(fd, 4096)
        if not part:
            raise ConnectionResetError("the far end has gone")
        got += part
    return got


def prepare(action: ActionData) -> None:
    """Load now what `carry_out` will need: it may be needed because the machine is out of memory."""
    if action["kind"] == "mqtt":
        from device_agent.guard import mqtt

        mqtt.prepare(action)
    elif action["kind"] == "smbus":
        import array as array


def set_line(fd: int, active: bool) -> None:
    """Logical: the kernel applies the request's own `active_low`, as it does for the daemon."""
    fcntl.ioctl(fd, LINE_SET_VALUES, struct.pack("=QQ", int(active), 1))


def write_anew(action: ActionData) -> int:
    """Open the place and write; the descriptor to keep, -1 for none.

    A serial port is set as the daemon had it, once nobody else has it; a simulated board is greeted, and its
    line is claimed, which sets it as well.
    """
    if "greeting" in action:
        return _on_board(action)
    fd = os.open(action["path"], os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        if "termios" in action:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as the daemon's library does, and others
            fcntl.ioctl(fd, TCSETS2, action["termios"])
        write_bytes(fd, action["steps"], action["answer"])
    finally:
        os.close(fd)
    return -1


def _on_board(action: ActionData) -> int:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    action["steps"] = action.get("claim") or action["steps"]
    try:
        sock.connect(action["path"])
        write_bytes(sock.fileno(), *action["greeting"])
        write_bytes(sock.fileno(), action["steps"], action["answer"])
    except OSError:
        sock.close()
        raise
    return sock.detach()


def claim_line(path: str, offset: int, active: bool, flags: int) -> int:
    """Take a line that nobody holds, as an output at this level in one step; its descriptor."""
    chip = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        # One attribute, GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES with its mask: the level comes with the direction.
        value = struct.pack("=IIQQ", 2, 0, int(active), 1)
        request = struct.pack(
            LINE_REQUEST,
            offset, b"", b"device-agent", flags, 1, b"", value, b"", 1, 0, b"", 0,
        )  # fmt: skip
        answer = bytearray(request)
        fcntl.ioctl(chip, GET_LINE, answer, True)
        fd: int = struct.unpack_from("=i", answer, len(answer) - 4)[0]
    finally:
        os.close(chip)
    os.set_inheritable(fd, False)
    return fd


def write_bytes(fd: int, steps: list[bytes | float | bool], answer: bytes) -> None:
    """Write each; where there is an `answer`, each must be answered by exactly these bytes.

    A bool is the level of RTS from when all before it is sent: it switches an adapter's direction.
    """
    for step in steps:
        if isinstance(step, bool):
            fcntl.ioctl(fd, TCSBRK, 1)
            fcntl.ioctl(fd, TIOCMBIS if step else TIOCMBIC, struct.pack("=i", TIOCM_RTS))
            continue
        if isinstance(step, float):
            time.sleep(step)
            continue
        rest = memoryview(step)
        while rest:
            _wait(fd, select.POLLOUT, BYTES_LIMIT_S)
            rest = rest[os.write(fd, rest) :]
        if answer:
            _expect(fd, answer)


def _expect(fd: int, answer: bytes) -> None:
    got = _received(fd, len(answer), BYTES_LIMIT_S)
    if got != answer:
        raise ConnectionError(f"the far end refused: {got!r}")


def _wait(fd: int, event: int, limit_s: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(limit_s * 1000):
        raise TimeoutError(f"the far end did not {'take' if event == select.POLLOUT else 'answer'} it")


def write_i2c(path: str, steps: list[tuple[int, bytes] | float]) -> None:
    """One plain I2C write for each step; the adapter's time-out is the one that the daemon has set."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for step in steps:
            if isinstance(step, float):
                time.sleep(step)
            else:
                fcntl.ioctl(fd, I2C_SLAVE, step[0])
                os.write(fd, step[1])
    finally:
        os.close(fd)


def write_smbus(path: str, steps: list[tuple[int, bytes] | float]) -> None:
    """For an adapter that cannot do plain I2C: a register and up to 32 bytes in one transfer."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for step in steps:
            if isinstance(step, float):
                time.sleep(step)
                continue
            fcntl.ioctl(fd, I2C_SLAVE, step[0])
            register, data = step[1][0], step[1][1:]
            if len(data) <= 1:
                _smbus(fd, register, I2C_SMBUS_BYTE_DATA if data else I2C_SMBUS_BYTE, data)
            for start in range(0, len(data) if len(data) > 1 else 0, SMBUS_BLOCK_MAX):
                part = data[start : start + SMBUS_BLOCK_MAX]
                _smbus(fd, register + start, I2C_SMBUS_I2C_BLOCK_DATA, bytes((len(part),)) + part)
    finally:
        os.close(fd)


def _smbus(fd: int, register: int, size: int, data: bytes) -> None:
    import array  # loaded by `prepare`

    block = array.array("B", data.ljust(SMBUS_BLOCK_MAX + 2, b"\0"))
    # struct i2c_smbus_ioctl_data: read_write (0: write), command, size, pointer to the data
    fcntl.ioctl(fd, I2C_SMBUS, struct.pack("BBIP", 0, register, size, block.buffer_info()[0]))
