"""No bytes of others get more out of a parser than its own error."""

import os
import random

import pytest

from support.fuzzing import TARGETS, cases

CASES = 10_000
SOAK_CASES = int(os.environ.get("DEVICE_AGENT_CASES", "1000000"))


def run(name: str, count: int, seed: int) -> None:
    target = TARGETS[name]
    for data in cases(target, count, seed):
        try:
            target.feed(data)
        except target.own:
            continue
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} for {data!r}; seed {seed}") from error


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_has_one_error(name: str) -> None:
    """The same cases on every machine."""
    run(name, CASES, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_has_one_error_for_long(name: str) -> None:
    run(
        name,
        SOAK_CASES,
        int(os.environ.get("DEVICE_AGENT_SEED", "0")) or random.SystemRandom().randrange(10**6),
    )
