"""Drivers as installed packages: found without import, loaded one by one, broken ones alone."""

import sys
from pathlib import Path

import pytest

from device_agent import registry
from device_agent.errors import ConfigError

GOOD = """
from typing import Literal
from device_agent.driver import DriverConfig, NoBus, Point, Sensor

class AcmeConfig(DriverConfig):
    driver: Literal["acme"] = "acme"

class Acme(Sensor[AcmeConfig, NoBus]):
    points = (Point("value"),)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a package with one driver on the path, as pip would leave it."""

    def make(name: str, module: str, source: str, value: str, package: str = "acme-drivers") -> None:
        site = tmp_path / package
        info = site / f"{package.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(site)

    yield make
    for module in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[module]


def test_a_foreign_driver_is_one_of_all(install):
    install("acme", "acme_good", GOOD, "acme_good:Acme")
    assert "acme" in registry.names()
    assert "acme_good" not in sys.modules
    assert registry.load("acme").__name__ == "Acme"
    assert registry.origin("acme") == "acme-drivers 1.2"


def test_our_own_come_the_same_way():
    assert {"bme280", "gpio-input", "gpio-output", "host"} <= set(registry.names())
    assert registry.names() == sorted(registry.names())
    assert registry.origin("host").startswith("device-agent ")
    for name in registry.names():
        assert registry.load(name).Config.model_fields["driver"].default == name


def test_an_unknown_name_lists_what_is_installed_and_the_nearest():
    with pytest.raises(ConfigError) as caught:
        registry.load("bme_280")
    message = str(caught.value)
    assert message.startswith('driver "bme_280" is not installed: did you mean "bme280"? Installed are ')
    assert ", gpio-input, gpio-output, " in message


def test_nothing_like_it_gets_no_guess():
    with pytest.raises(ConfigError, match=r'^driver "zzz" is not installed: Installed are '):
        registry.load("zzz")


@pytest.mark.parametrize(
    ("source", "value", "sentence"),
    [
        ("import no_such", "acme_bad:Acme", "(ModuleNotFoundError: No module named 'no_such')"),
        ("x = = 1", "acme_bad:Acme", "(SyntaxError: invalid syntax"),
        ("raise SystemExit('bye')", "acme_bad:Acme", "(SystemExit: bye)"),
        ("x = 1 / 0", "acme_bad:Acme", "(ZeroDivisionError: division by zero)"),
        ("x = 1", "acme_bad:Acme", "(AttributeError: "),
        ("class Acme: pass", "acme_bad:Acme", "is not a class derived from device_agent.driver.Driver"),
        (GOOD.replace('"acme"', '"other"'), "acme_bad:Acme", 'does not allow "acme"'),
    ],
    ids=["missing", "syntax", "exit", "crash", "absent", "foreign", "misnamed"],
)
def test_a_broken_package_fails_alone_and_by_name(install, source, value, sentence):
    install("acme", "acme_bad", source, value)
    assert "acme" in registry.names()
    assert registry.load("host").__name__ == "Host"
    with pytest.raises(ConfigError) as caught:
        registry.load("acme")
    assert str(caught.value).startswith('driver "acme" of acme-drivers 1.2')
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_packages_that_claim_a_name(install):
    install("acme", "acme_one", GOOD, "acme_one:Acme", package="one")
    install("acme", "acme_two", GOOD, "acme_two:Acme", package="two")
    with pytest.raises(ConfigError, match=r"two 1.2 \(acme_two:Acme\) and one 1.2 .*uninstall one of them"):
        registry.load("acme")
