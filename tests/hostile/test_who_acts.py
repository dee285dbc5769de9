"""What an actor is, and who, is no matter of a name that somebody else chooses."""

import json
from typing import Any

from support.callers import question, result
from support.deployment import World, send


def test_names_of_tasks_give_no_rights(world: World, alice: Any) -> None:
    """A task called as the owner, or a delegation, is called in the records."""
    for task_id in ("local", "delegation:night"):
        message = {
            "type": "StartTask",
            "taskId": task_id,
            "ownerId": "user_mallory",
            "requestParts": [
                {
                    "partId": "request",
                    "text": json.dumps({"op": "set", "device": "valve", "values": {"on": True}}),
                }
            ],
        }
        send(world, message)
    assert result(question(alice, {"op": "read", "devices": ["door"]}))["state"] == "done"
    assert not any(row["result"] == "done" for row in world.daemon.ask("journal") if row["what"] == "on=True")
    assert world.board is not None
    assert set(world.board.levels(27)) == {1}, "the relay never moved"


def test_two_names_of_one_caller_must_agree(world: World, alice: Any) -> None:
    """Access rules do not depend on which of them is believed."""
    move = json.dumps({"op": "set", "device": "valve", "values": {"on": True}})
    for owner, sub in (("user_alice", "user_mallory"), ("user_mallory", "user_alice")):
        message = {
            "type": "StartTask",
            "taskId": f"two-{owner}",
            "ownerId": owner,
            "callerClaims": {"sub": sub},
            "requestParts": [{"partId": "request", "text": move}],
        }
        send(world, message)
    assert result(question(alice, {"op": "read", "devices": ["valve"]}))["readings"][0]["values"] == {
        "on": False
    }
    assert world.board is not None
    assert set(world.board.levels(27)) == {1}, "the relay never moved"
