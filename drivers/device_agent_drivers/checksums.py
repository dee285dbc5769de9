"""Checksums of serial protocols and chips."""

from collections.abc import Callable
from functools import reduce
from operator import xor


def crc(bits: int, polynomial: int, start: int, *, reflected: bool) -> Callable[[bytes], int]:
    """A CRC of 8 or 16 bits; `reflected`: lowest bit first, with the polynomial so written."""
    mask = (1 << bits) - 1
    table = [_of_byte(byte, bits, polynomial, reflected) for byte in range(256)]

    def checksum(data: bytes) -> int:
        value = start
        if reflected:
            for byte in data:
                value = value >> 8 ^ table[(value ^ byte) & 0xFF]
        else:
            for byte in data:
                value = (value << 8 & mask) ^ table[value >> bits - 8 ^ byte]
        return value

    return checksum


def _of_byte(byte: int, bits: int, polynomial: int, reflected: bool) -> int:
    value = byte if reflected else byte << bits - 8
    for _ in range(8):
        if reflected:
            value = value >> 1 ^ polynomial if value & 1 else value >> 1
        else:
            value = value << 1 ^ polynomial if value >> bits - 1 else value << 1
            value &= (1 << bits) - 1
    return value


# Names of the catalogue of parametrised CRC algorithms
crc16_modbus = crc(16, 0xA001, 0xFFFF, reflected=True)
crc16_arc = crc(16, 0xA001, 0, reflected=True)
crc16_ibm_3740 = crc(16, 0x1021, 0xFFFF, reflected=False)
crc8_maxim_dow = crc(8, 0x8C, 0, reflected=True)
crc8_nrsc_5 = crc(8, 0x31, 0xFF, reflected=False)


def xor8(data: bytes) -> int:
    return reduce(xor, data, 0)


def sum8(data: bytes) -> int:
    return sum(data) & 0xFF


def negated_sum8(data: bytes) -> int:
    """With it, the sum of all bytes is 0."""
    return -sum(data) & 0xFF


def sum16(data: bytes) -> int:
    return sum(data) & 0xFFFF
