"""A year of ten devices is within what the configuration allows by default."""

from pathlib import Path

from device_agent.config.models import HistoryConfig
from device_agent.store.history.history_file import DAY_MS, HistoryFile
from support.aged_history import fill

DEVICES = [f"climate_{n}" for n in range(10)]
NOW_MS = 20_000 * DAY_MS


def test_a_year_of_ten_devices_every_five_seconds(tmp_path: Path) -> None:
    usual = HistoryConfig()
    assert usual.keep_days >= 366
    file = HistoryFile(
        tmp_path / "history.db", keep_ms=round(usual.keep_days * DAY_MS), max_bytes=usual.max_bytes
    )
    fill(file, DEVICES, 365, NOW_MS)
    used_bytes = file.used_bytes
    file.close()
    print(f"a year of ten devices: {used_bytes / 1e6:.1f} MB")
    assert used_bytes < usual.max_bytes / 4
