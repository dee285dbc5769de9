"""Every installed driver keeps the rules that a third party's must keep."""

import pytest

from device_agent import registry
from device_agent.testing import check_driver
from support.contract_cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_the_contract_of(name: str) -> None:
    options, feed = CASES[name]
    check_driver(registry.load(name), options, feed=feed)
