"""Checksums of serial protocols."""

from collections.abc import Callable
from functools import reduce
from operator import xor


def crc16(polynomial: int, start: int, *, reflected: bool) -> Callable[[bytes], int]:
    """A CRC-16 over bytes; `reflected`: lowest bit first, with the polynomial so written."""
    table = [_of_byte(byte, polynomial, reflected) for byte in range(256)]

    def checksum(data: bytes) -> int:
        crc = start
        if reflected:
            for byte in data:
                crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
        else:
            for byte in data:
                crc = (crc << 8 & 0xFFFF) ^ table[crc >> 8 ^ byte]
        return crc

    return checksum


def _of_byte(byte: int, polynomial: int, reflected: bool) -> int:
    crc = byte if reflected else byte << 8
    for _ in range(8):
        if reflected:
            crc = crc >> 1 ^ polynomial if crc & 1 else crc >> 1
        else:
            crc = (crc << 1 ^ polynomial if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


# Names of the catalogue of parametrised CRC algorithms
crc16_modbus = crc16(0xA001, 0xFFFF, reflected=True)
crc16_arc = crc16(0xA001, 0, reflected=True)
crc16_ibm_3740 = crc16(0x1021, 0xFFFF, reflected=False)


def xor8(data: bytes) -> int:
    return reduce(xor, data, 0)


def sum8(data: bytes) -> int:
    return sum(data) & 0xFF


def negated_sum8(data: bytes) -> int:
    """With it, the sum of all bytes is 0."""
    return -sum(data) & 0xFF


def sum16(data: bytes) -> int:
    return sum(data) & 0xFFFF
