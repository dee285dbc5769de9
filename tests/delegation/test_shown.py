"""A delegation's events as `device-agent call` shows them, and what it makes of them."""

from device_agent.cli.show import sentence


def event(**members: object) -> dict[str, object]:
    return {"kind": "control", "at": 1, "seq": 1, "about": "delegation", "delegation": "hot", **members}


def test_each_state_has_its_line() -> None:
    ack = {"state": "done", "applied": {"on": True}, "verified": True}
    answered = sentence(event(state="answered", answer="Yes\x1b[2J.\nNow", command="water", ack=ack), {})
    assert answered.endswith("delegation: hot answered: Yes [2J. Now [water: done: on = on (read back)]")
    assert sentence(event(state="asked", cause="climate is hot"), {}).endswith("hot asked: climate is hot")
    late = event(state="no_answer", cause="x", error={"code": "internal", "message": "no answer within 10 s"})
    assert sentence(late, {}).endswith("hot no_answer: no answer within 10 s")
