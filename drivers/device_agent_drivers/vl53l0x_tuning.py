"""What the VL53L0X's data sheet leaves to ST's public API (STSW-IMG005): tuning, timing, status."""

from device_agent.driver import Flag

# Register, value; register 0xFF chooses the page. Order matters.
_DEFAULT_TUNING = """
    FF01 0000
    FF00 0900 1000 1100 2401 25FF 7500
    FF01 4E2C 4800 3020
    FF00 3009 5400 3104 3203 4083 4625 6000 2700 5006 5100 5296 5608 5730 6100 6200 6400 6500 66A0
    FF01 2232 4714 49FF 4A00
    FF00 7A0A 7B00 7821
    FF01 2334 4200 44FF 4526 4605 4040 0E06 201A 4340
    FF00 3403 3544
    FF01 3104 4B09 4C05 4D04
    FF00 4400 4520 4708 4828 6700 7004 7101 72FE 7600 7700
    FF01 0D01
    FF00 8001 01F8
    FF01 8E01 0001
    FF00 8000
"""
TUNING = tuple(tuple(bytes.fromhex(pair)) for pair in _DEFAULT_TUNING.split())

# Opens and closes the page with the chip's internals
UNLOCK = ((0x80, 0x01), (0xFF, 0x01), (0x00, 0x00))
LOCK = ((0x00, 0x01), (0xFF, 0x00), (0x80, 0x00))

# Asks the chip's memory for its reference SPADs, and ends that
ASK_SPADS = ((0xFF, 0x07), (0x81, 0x01), (0x80, 0x01), (0x94, 0x6B), (0x83, 0x00))
ASKED_SPADS = ((0x81, 0x00), (0xFF, 0x06))
SET_SPADS = ((0xFF, 0x01), (0x4F, 0x00), (0x4E, 0x2C), (0xFF, 0x00), (0xB6, 0xB4))

VALID = 11
NOTHING_MM = 8190  # and 8191: no target, whatever the status says

# Device range status (bits 3 to 6 of the first result byte) to what is wrong with the range
RANGE_FLAGS = {
    1: Flag.NOT_READY,  # laser: continuity
    2: Flag.NOT_READY,  # laser: watchdog
    3: Flag.NOT_READY,  # no reference calibration
    4: Flag.OUT_OF_RANGE,  # too little signal
    6: Flag.OUT_OF_RANGE,  # phase
    8: Flag.OUT_OF_RANGE,  # below the least range
    9: Flag.OUT_OF_RANGE,  # phase
    10: Flag.OUT_OF_RANGE,  # below the least range
}

_PLL_PERIOD_PS = 1655
_MACRO_PERIOD_VCLKS = 2304
# As the tuning above sets them: 0x50, 0x70, 0x46, 0x51
_PRE_RANGE_PCLKS, _FINAL_RANGE_PCLKS = 14, 10
_DSS_MCLKS, _PRE_RANGE_MCLKS = 0x25 + 1, 0x96 + 1
# Overheads of start, end, DSS, pre-range and final range
_START_US, _END_US, _DSS_US, _PRE_US, _FINAL_US = 1320, 960, 690, 660, 550


def reference_spads(good: bytes, count: int, *, aperture: bool) -> bytes | None:
    """The first `count` good SPADs of their kind as the map that enables them; None where there are fewer."""
    enabled = bytearray(6)
    for place in range(12 if aperture else 0, 48):
        if count and good[place // 8] >> place % 8 & 1:
            enabled[place // 8] |= 1 << place % 8
            count -= 1
    return None if count else bytes(enabled)


def final_range_timeout(budget_us: int) -> int:
    """The register value that gives the final range what the other steps leave of the time for one range."""
    pre_us = _microseconds(_PRE_RANGE_MCLKS, _PRE_RANGE_PCLKS)
    dss_us = _microseconds(_DSS_MCLKS, _PRE_RANGE_PCLKS)
    used_us = _START_US + _END_US + 2 * (dss_us + _DSS_US) + pre_us + _PRE_US + _FINAL_US
    macro_ns = _macro_period_ns(_FINAL_RANGE_PCLKS)
    mclks = ((budget_us - used_us) * 1000 + macro_ns // 2) // macro_ns
    return encoded_timeout(mclks + _PRE_RANGE_MCLKS)


def encoded_timeout(mclks: int) -> int:
    """(low byte << high byte) + 1 macro periods."""
    low, high = mclks - 1, 0
    while low > 0xFF:
        low >>= 1
        high += 1
    return high << 8 | low


def _macro_period_ns(pclks: int) -> int:
    return (_MACRO_PERIOD_VCLKS * pclks * _PLL_PERIOD_PS + 500) // 1000


def _microseconds(mclks: int, pclks: int) -> int:
    macro_ns = _macro_period_ns(pclks)
    return (mclks * macro_ns + macro_ns // 2) // 1000
