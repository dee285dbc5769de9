"""A command that the owner has listed, carried out as any caller's: leases, limits and the Journal hold."""

from device_agent.commands.authorization import Actor
from device_agent.commands.executor import CommandExecutor
from device_agent.config.trigger import AllowedCommand
from device_agent.messages.acks import Ack
from device_agent.messages.commands import Command, Do, Set


async def carry_out(executor: CommandExecutor, listed: AllowedCommand, actor: Actor, id_: str) -> Ack:
    """Its ack. The actor keeps no lease."""
    try:
        return await executor.execute(_command(listed, id_), actor, age_ms=0.0, for_s=listed.for_s)
    finally:
        executor.leases.release(actor.holder)


def _command(listed: AllowedCommand, id_: str) -> Command:
    if listed.action:
        return Do(kind="do", id=id_, device=listed.device, action=listed.action, args=dict(listed.args))
    return Set(kind="set", id=id_, device=listed.device, values=dict(listed.values))
