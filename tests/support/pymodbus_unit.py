"""Unit 17 on the serial line that is its argument, by pymodbus: a far end that shares no code with ours."""

import sys

from pymodbus.server import StartSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

UNIT = 17
HOLDING = [
    SimData(0, values=230.2, datatype=DataType.FLOAT32),
    SimData(2, values=-1234567, datatype=DataType.INT32),
    SimData(4, values=2**53 + 1, datatype=DataType.UINT64),
    SimData(8, values="EM-4 rev", datatype=DataType.STRING),
    SimData(100, values=215, datatype=DataType.UINT16),
]
INPUT = [SimData(0, values=-52.5, datatype=DataType.FLOAT64)]
COILS = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
DISCRETE = [SimData(0, values=[False, True] + [False] * 14, datatype=DataType.BITS)]

if __name__ == "__main__":
    StartSerialServer(
        SimDevice(UNIT, simdata=(COILS, DISCRETE, HOLDING, INPUT)), port=sys.argv[1], baudrate=19_200
    )
