"""The control side, wired once: for the daemon, for direct commands without a daemon, and for tests."""

from collections.abc import Mapping
from dataclasses import dataclass

from device_agent.clock import Clock
from device_agent.commands.delegation_action import DelegationAction
from device_agent.commands.executor import CommandExecutor
from device_agent.config import Config
from device_agent.devices.clock_chip import ClockChip
from device_agent.devices.context import Context
from device_agent.devices.device import Device
from device_agent.devices.dispatcher import Dispatcher
from device_agent.devices.hardware import HandleFactory, Hardware
from device_agent.records import ReadingSubscriber
from device_agent.safety.emergency_stop import EmergencyStop, StopLatch, StopLine
from device_agent.safety.guard_client import GuardClient, GuardSettings
from device_agent.safety.permit import MotionPermit
from device_agent.safety.safe_states import SafeStates
from device_agent.store.journal.journal import Journal


@dataclass(frozen=True, slots=True)
class ControlSide:
    """Everything between a command and the devices."""

    config: Config
    context: Context
    latch: StopLatch
    permit: MotionPermit
    safe_states: SafeStates
    emergency_stop: EmergencyStop
    executor: CommandExecutor
    guard: GuardClient

    @property
    def devices(self) -> dict[str, Device]:
        return self.context.devices

    async def recall(self) -> None:
        """Latch and limits go on where the last process left them; the Journal is open. Raises OSError."""
        self.latch.load()
        await self.safe_states.recall()

    def dispatcher(
        self, *subscribers: ReadingSubscriber | None, clock_chip: ClockChip | None = None
    ) -> Dispatcher:
        """For all readings of the devices. Those that are None are left out.

        The emergency stop sees a reading before anything else reacts to it, and conditions (`only_while`)
        before `subscribers` do, who may tell callers.
        """
        in_order = [clock_chip, self.emergency_stop, self.safe_states, *subscribers]
        return Dispatcher(subscriber for subscriber in in_order if subscriber is not None)

    def make_hardware(self, make_handle: HandleFactory, dispatcher: Dispatcher) -> Hardware:
        """Make the devices, last of all: whoever reacts to their readings is there already."""
        hardware = Hardware(
            self.config, make_handle, dispatcher, self.context.clock, self.devices, self.guard
        )
        for device in self.devices.values():
            self.safe_states.adopt(device)
        return hardware

    async def close(self) -> None:
        """End what these do beside; before the hardware is closed."""
        await self.emergency_stop.close()
        await self.safe_states.close()


def build_control(
    config: Config,
    journal: Journal,
    clock: Clock,
    *,
    log_style: str = "quiet",
    delegation_actions: Mapping[str, DelegationAction] | None = None,
) -> ControlSide:
    """Wire the control side; nothing is opened yet. `log_style` is the guard's."""
    context = Context({}, journal, clock)
    line = StopLine(config.safety, context.devices)
    latch = StopLatch(
        config.state.directory / "emergency_stop",
        line,
        boot=clock.boot,
        persists=config.safety.stop_persists,
    )
    permit = MotionPermit(clock, latch.check, config.safety.guard_timeout_s)
    safe_states = SafeStates(context, permit)
    emergency_stop = EmergencyStop(context, latch, line, safe_states)
    if delegation_actions is None:
        delegation_actions = {}
    executor = CommandExecutor(config, context, permit, safe_states, emergency_stop, delegation_actions)
    settings = GuardSettings(
        config.state.runtime_directory,
        config.safety.guard_timeout_s,
        log_style,
        config.safety.stop_device,
        config.safety.stop_active,
    )
    guard = GuardClient(context, permit, safe_states, executor.leases, settings, emergency_stop.press)
    return ControlSide(config, context, latch, permit, safe_states, emergency_stop, executor, guard)
