"""A receiver that sends GGA and RMC once a second, and without a fix goes on with its last position."""

import time

from device_agent.testing.chips import SerialChip

START_S = 1_767_225_600  # 2026-01-01T00:00:00Z


class SimulatedGps(SerialChip):
    """Quantities are the driver's points, but `time`, which goes on from 2026 with each report."""

    every_s = 1.0

    def __init__(self) -> None:
        super().__init__(
            {
                "latitude": 47.285233,
                "longitude": 8.56526,
                "altitude": 499.6,
                "speed": 0.5,
                "course": 77.52,
                "satellites": 8,
                "hdop": 1.01,
                "fix": True,
            }
        )
        self._reports = 0

    def report(self) -> bytes:
        at = time.gmtime(START_S + self._reports)
        self._reports += 1
        now = self._quantities
        clock = time.strftime("%H%M%S.00", at)
        place = f"{_angle(float(now['latitude']), 2, 'NS')},{_angle(float(now['longitude']), 3, 'EW')}"
        fix = bool(now["fix"])
        knots = float(now["speed"]) * 3600 / 1852
        gga = (
            f"GNGGA,{clock},{place},{int(fix)},{int(float(now['satellites'])):02d},{float(now['hdop']):.2f},"
            f"{float(now['altitude']):.1f},M,48.0,M,,"
        )
        rmc = (
            f"GNRMC,{clock},{'A' if fix else 'V'},{place},{knots:.4f},{float(now['course']):.2f},"
            f"{time.strftime('%d%m%y', at)},,,{'A' if fix else 'N'}"
        )
        return _framed(gga) + _framed("GNGSA,A,3,10,07,05,,,,,,,,,,1.5,1.0,1.1") + _framed(rmc)


def _angle(degrees: float, digits: int, letters: str) -> str:
    size = abs(degrees)
    return f"{int(size):0{digits}d}{size % 1 * 60:08.5f},{letters[degrees < 0]}"


def _framed(body: str) -> bytes:
    checksum = 0
    for byte in body.encode("ascii"):
        checksum ^= byte
    return f"${body}*{checksum:02X}\r\n".encode("ascii")
