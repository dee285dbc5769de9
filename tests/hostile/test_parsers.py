"""No bytes of others get more out of a parser than its own error.

A million cases of one parser, of the one whose name has all these words, or of all:

    DEVICE_AGENT_PARSER="stream bytes" python -m pytest -s -m soak tests/hostile/test_parsers.py

`DEVICE_AGENT_CASES` and `DEVICE_AGENT_SEED` say how many, and which; seed and rate are printed.
"""

import os
import random
import time

import pytest

from support.fuzzing import TARGETS, cases

CASES = 10_000
WORDS = os.environ.get("DEVICE_AGENT_PARSER", "").split()
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
@pytest.mark.parametrize("name", [name for name in TARGETS if all(word in name for word in WORDS)])
def test_a_parser_has_one_error_for_long(name: str) -> None:
    seed = int(os.environ.get("DEVICE_AGENT_SEED", "0")) or random.SystemRandom().randrange(10**6)
    began_s = time.process_time()
    print(f"\n{name}: {SOAK_CASES} cases, seed {seed}", flush=True)
    run(name, SOAK_CASES, seed)
    print(f"{name}: {SOAK_CASES / (time.process_time() - began_s):.0f} cases in a second of a core")
