"""MCP23017 and PCF8574: directions, latches, polarity, foreign state, and writes that move nothing else."""

import pytest

from device_agent.driver import ChipReset, DriverError
from device_agent.testing import check_driver
from device_agent_drivers.mcp23017 import Mcp23017, Mcp23017Config
from device_agent_drivers.pcf8574 import Pcf8574, Pcf8574Config

MIXED = {
    "inputs": ["a0", "b7"],
    "outputs": ["a1", "a2", "b0"],
    "pull_up": ["a0"],
    "active_low": ["a0", "a2"],
    "safe": {"a1": False, "a2": False, "b0": True},
}
QUASI = {
    "inputs": ["p0", "p7"],
    "outputs": ["p1", "p2", "p3"],
    "active_low": ["p2", "p7"],
    "safe": {"p1": False, "p2": False, "p3": True},
}


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        (Mcp23017, MIXED),
        (Mcp23017, {"inputs": ["a0", "a1"], "pull_up": ["a0", "a1"]}),
        (Mcp23017, {"outputs": list(Mcp23017Config.pins), "safe": False}),
        (Pcf8574, QUASI),
        (Pcf8574, {"inputs": ["p3"]}),
        (Pcf8574, {"outputs": list(Pcf8574Config.pins), "safe": True, "address": 0x3F}),
    ],
)
def test_contract(driver, options):
    check_driver(driver, options)


# --- MCP23017 --------------------------------------------------------------------------------------------

IODIR, IPOL, GPINTEN, IOCON, GPPU, OLAT = 0x00, 0x02, 0x04, 0x0A, 0x0C, 0x14


def test_mcp_settings_by_the_sheet(bench):
    it = bench(Mcp23017, "i2c1", **MIXED)
    it.driver.open()
    chip = it.board.chip("it")
    assert chip.get(IODIR, 2) == bytes((0b1111_1001, 0b1111_1110))
    assert chip.get(GPPU, 2) == bytes((0b0000_0001, 0))
    # a2 is active low and safe is off: its level is high
    assert chip.get(OLAT, 2) == bytes((0b0000_0100, 0b0000_0001))


@pytest.mark.parametrize("iocon", [0x00, 0x80, 0xA0, 0x20, 0xFF])
def test_mcp_bank_bit_and_every_other_foreign_state(bench, iocon):
    it = bench(Mcp23017, "i2c1", **MIXED)
    chip = it.board.chip("it")
    for register in range(0x16):
        chip[register] = 0x5A
    chip[IOCON] = iocon
    it.driver.open()
    it.board.set("it", a0=True, b7=True)
    assert it.measure() == {"a0": True, "a1": False, "a2": False, "b0": True, "b7": True}
    assert it.driver.write({"a2": True}) == {"a2": True}
    assert chip.get(OLAT, 2) == bytes((0, 1))
    assert chip.get(IPOL, 4) == bytes(4)


def test_mcp_outputs_never_blink_at_open(bench):
    """A relay that is low when on, left as an output by the program before with all latches at 0."""
    it = bench(Mcp23017, "i2c1", outputs=["a0", "b3"], active_low=["a0", "b3"], safe=False)
    it.driver.open()
    moved = [entry for entry in it.board.record.entries if entry.get("point")]
    assert moved == []
    it.driver.write({"a0": True})
    it.driver.open()
    moved = [(entry["point"], entry["value"]) for entry in it.board.record.entries if entry.get("point")]
    assert moved == [("a0", True), ("a0", False)]


def test_mcp_a_write_touches_no_other_port(bench):
    it = bench(Mcp23017, "i2c1", **MIXED)
    it.driver.open()
    sent = [entry for entry in it.board.record.entries if "bytes" in entry]
    it.driver.write({"b0": False})
    (entry,) = [entry for entry in it.board.record.entries if "bytes" in entry][len(sent) :]
    assert entry["bytes"] == "\x15\x00"
    it.driver.write({"a1": True, "b0": True})
    assert it.board.record.entries[-1]["t"] is not None
    assert it.board.chip("it").outputs() == {"a1": True, "a2": False, "b0": True}


def test_mcp_inputs_are_logical(bench):
    it = bench(Mcp23017, "i2c1", **MIXED)
    it.driver.open()
    assert it.measure()["a0"] is False  # an open contact to ground
    for value in (True, False):
        it.board.set("it", a0=value, b7=value)
        values = it.measure()
        assert (values["a0"], values["b7"]) == (value, value)


@pytest.mark.parametrize("use", ["measure", "write"])
def test_mcp_a_reset_is_told(bench, use):
    it = bench(Mcp23017, "i2c1", **MIXED)
    it.driver.open()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="IODIR is 0xffff"):
        it.measure() if use == "measure" else it.driver.write({"a1": True})
    assert it.board.chip("it").get(OLAT, 2) == bytes(2)
    it.driver.open()
    assert it.board.chip("it").outputs() == {"a1": False, "a2": False, "b0": True}


def test_mcp_something_else_at_the_address(bench):
    it = bench(Mcp23017, "i2c1", **MIXED)
    it.board.chip("it").on_read = lambda register, value: 0xFF
    with pytest.raises(DriverError, match="no MCP23017 at 0x20"):
        it.driver.open()


# --- PCF8574 ---------------------------------------------------------------------------------------------


def test_pcf_inputs_have_a_one_in_the_latch(bench):
    it = bench(Pcf8574, "i2c1", **QUASI)
    it.driver.open()
    chip = it.board.chip("it")
    assert chip.latch == 0b1111_1101


def test_pcf_a_pulled_down_input_stays_an_input(bench):
    """Whoever reads the pins, changes one and writes them back freezes this one at 0."""
    it = bench(Pcf8574, "i2c1", **QUASI)
    it.driver.open()
    it.board.set("it", p0=False, p7=True)
    assert it.driver.write({"p1": True}) == {"p1": True}
    assert it.measure() == {"p0": False, "p1": True, "p2": False, "p3": True, "p7": True}
    it.board.set("it", p0=True, p7=False)
    assert it.measure() == {"p0": True, "p1": True, "p2": False, "p3": True, "p7": False}
    assert it.board.chip("it").latch == 0b1111_1111


def test_pcf_a_write_touches_no_other_pin(bench):
    it = bench(Pcf8574, "i2c1", **QUASI)
    it.driver.open()
    for values in ({"p2": True}, {"p1": True}, {"p3": False}, {"p2": False}):
        before = it.board.chip("it").latch
        it.driver.write(values)
        (name,) = values
        assert it.board.chip("it").latch ^ before == 1 << int(name[1])


def test_pcf_relays_do_not_click_at_open(bench):
    it = bench(Pcf8574, "i2c1", outputs=["p0", "p1"], active_low=["p0", "p1"], safe=False)
    it.driver.open()
    assert [entry for entry in it.board.record.entries if entry.get("point")] == []


@pytest.mark.parametrize("use", ["measure", "write"])
def test_pcf_a_lost_latch_is_told(bench, use):
    it = bench(Pcf8574, "i2c1", **QUASI)
    it.driver.open()
    it.board.reset("it")
    with pytest.raises(ChipReset, match="p1 should be driven low"):
        it.measure() if use == "measure" else it.driver.write({"p3": False})


# --- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (Mcp23017Config, {}, "needs `inputs`"),
        (Mcp23017Config, {"inputs": ["c0"]}, "the pins are a0 to b7"),
        (Mcp23017Config, {"inputs": ["a0"], "outputs": ["a0"], "safe": False}, "twice"),
        (Mcp23017Config, {"outputs": ["a0"]}, "`safe` of output a0"),
        (Mcp23017Config, {"outputs": ["a0"], "safe": 1}, "must be true or false"),
        (Mcp23017Config, {"outputs": ["a0", "a1"], "safe": {"a0": True}}, "output a1"),
        (Mcp23017Config, {"inputs": ["a0"], "active_low": ["a1"]}, "neither input nor output"),
        (Mcp23017Config, {"inputs": ["a0"], "pull_up": ["a9"]}, "pull_up"),
        (Mcp23017Config, {"inputs": ["a0"], "address": 0x28}, "address"),
        (Pcf8574Config, {"inputs": ["p0"], "address": 0x30}, "0x38 to 0x3f"),
        (Pcf8574Config, {"inputs": ["p0"], "pull_up": ["p0"]}, "pull_up"),
    ],
)
def test_options_are_checked(config, options, message):
    with pytest.raises(ValueError, match=message):
        config.model_validate(options)
