"""Cross checks of what moves: conditions on other devices, pulses, and what the guard can keep."""

import pytest

from support.config_texts import PINS, THERMO, device, relay


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("{ r = { on = true } }", "devices.r.only_while.r is the device itself: name another one"),
        ("{ tt = { alert = true } }", 'devices.r.only_while.tt is not declared: did you mean "t"?'),
        ("{ t = {} }", "devices.r.only_while.t has no point: add one, or remove the table"),
        (
            "{ t = { alerts = true } }",
            'devices.r.only_while.t.alerts is no point of t: did you mean "alert"?',
        ),
        (
            "{ t = { alert = 1 } }",
            "devices.r.only_while.t.alert = 1 must be true or false, as it reads no other",
        ),
        (
            "{ t = { temperature = { minimum = 9, maximum = 3 } } }",
            "devices.r.only_while.t.temperature: minimum and maximum are 9 and 3: swap them",
        ),
        (
            "{ t = { alert = { minimum = 0 } } }",
            "devices.r.only_while.t.alert has bounds, but is no number: write the value that it must have",
        ),
        (
            "{ t = { temperature = {} } }",
            "devices.r.only_while.t.temperature has no bound: add minimum, maximum or both",
        ),
        ("{ t = { alert = false, temperature = { maximum = 60 } } }", None),
    ],
)
def test_conditions_name_points_that_exist(problems, condition, sentence):
    text = THERMO + PINS + relay("r").replace("\n[", "\n") + f"only_while = {condition}\n"
    assert problems(text) == (() if sentence is None else (sentence,))


PWM_PINS = PINS + 'backend = "gpiozero"\n'
CHANNEL = PINS + 'pwm = { 4 = "pwmchip0/0" }\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PINS + device("f", "blower", bus='"p"', line=4, safe=0), "can only be switched on and off: name"),
        (PWM_PINS + device("f", "blower", bus='"p"', line=4, safe=0.3), "a duty of 0.3 could not be kept"),
        (PWM_PINS + device("f", "blower", bus='"p"', line=4, safe=1), ""),
        (CHANNEL + device("f", "blower", bus='"p"', line=4, safe=0.3), ""),
        (PWM_PINS + device("a", "arm", bus='"p"', line=4, safe=0), ""),
    ],
)
def test_pulses_need_something_that_keeps_them(problems, text, words):
    found = problems(text)
    assert found == () if not words else words in found[0], found


def test_what_the_guard_cannot_keep_safe_is_a_warning(load_text):
    text = '[agent]\nname = "a"\n' + PWM_PINS + device("a", "arm", bus='"p"', line=4, safe=0)
    assert any(
        "devices.a goes to no position when the agent is killed" in w for w in load_text(text).warnings
    )
    assert not any("goes to no position" in w for w in load_text(text.replace(PWM_PINS, CHANNEL)).warnings)
