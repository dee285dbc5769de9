"""`config describe`: the page is current, each key is explained, and the schema takes what `check` takes."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from device_agent.cli.config import file_schema, page, sections

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("configuring", "delegations", "mqtt", "page")))
CARDS = sorted((ROOT / "cards").glob("*.toml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(json.dumps(file_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == page(), "run make driver-docs"


def test_each_key_says_what_it_does() -> None:
    known = {section["table"]: section["keys"] for section in sections()}
    unexplained = [
        f"{table} {key['name']}"
        for table, keys in known.items()
        for key in keys
        if not key.get("description") and key["name"] != "kind"
    ]
    assert unexplained == []
    for table in (
        "agent",
        "buses.NAME.power",
        "access.devices.NAME.points.NAME",
        "delegations.NAME.commands.NAME",
    ):
        assert f"[{table}]" in known


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_schema_takes_the_examples(validator: Any, path: Path) -> None:
    validator.validate(tomllib.loads(path.read_text()))


def test_the_schema_takes_the_pages(validator: Any) -> None:
    blocks = [
        tomllib.loads(block)
        for name in PAGES
        for block in re.findall(
            r"^```toml[^\n]*\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL
        )
    ]
    assert blocks
    for block in blocks:
        validator.validate(block)


@pytest.mark.parametrize(
    "text",
    [
        "[agent]\nnam = 'x'",
        "[outbox]\nmax_bytes = '1 TB'",
        "[devices.a]\ndriver = 'bme280'\nbus = 'b'\naddress = 5",
        "[devices.a]\ndriver = 'nothing'",
        "[buses.b]\nkind = 'usb'",
        "[access]\nread = 'me'",
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(validator: Any, text: str) -> None:
    assert not validator.is_valid(tomllib.loads(text))


def test_it_is_printed_for_people_and_for_programs() -> None:
    def told(*words: str) -> str:
        command = [sys.executable, "-m", "device_agent", "config", "describe", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert re.search(r"^\[history\]  The local record of readings\.$", told(), re.MULTILINE)
    assert re.search(r"^max_bytes +size ≥ 256 kB, ≤ 64 GB +\"32 MB\" ", told(), re.MULTILINE)
    assert {"table", "description", "keys"} == set(json.loads(told("--json"))[0])
    assert json.loads(told("--json-schema"))["$defs"]
