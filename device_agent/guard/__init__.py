"""The guard: a process of its own that makes actuators safe when the daemon is killed or hangs.

It imports next to nothing, so that it takes 3 MB of its own (9 MB resident: the rest is the interpreter's
file). `device_agent.safety.guard_client` is the daemon's side of it.

How it is started. Under systemd it is a service of its own (`device-agent-guard.service`) at
$DEVICE_AGENT_GUARD, outside the daemon's restarts and memory limit. Where none answers there, the daemon
starts one as its child, at `guard.sock` in the runtime directory.

What it knows. When an actuator has been opened, the daemon hands over its recipes
(`device_agent.bus.recipe`): a duplicate of the descriptor that keeps a line driven, or the bytes that the
driver's `safe` or `open` writes and where they go. When it has to act it asks nobody and loads next to
nothing.

When it acts. At the end of the daemon's connection (SIGKILL, crash, out of memory: at once), or when the
event loop has been silent for `guard_timeout_s` (SIGSTOP, a hang) while something is away from safe, or was
moved within a minute: a daemon that takes seconds to start on a slow board endangers nothing. Lines come
first; each bus has a thread of its own, so that a stuck one delays no other; what fails is tried again until
it works or a daemon is back. Each act is a line of the log, and `who = "guard"` in the Journal of the daemon
that goes on or comes next.

The stop input. Where `safety.stop_device` is a `gpio-input` (with `backend = "gpiozero"` on lgpio), each edge
of its line wakes the guard, and it looks 60 times a second besides. When it is pressed, lines go to safe at
once, and again and again until the daemon has answered; other buses after 15 ms without an answer. The daemon
then latches the emergency stop, the one that comes next if this one is dead.

When all processors are busy. The guard gives itself a real-time priority and keeps its memory from being
swapped, as root and where its unit allows it; where it may not, `doctor` says so.

What follows. Lines stay driven at safe. A new daemon takes them over one by one: the guard releases a line
when nothing but its hold keeps the daemon from claiming it, at safe again, and takes it back if the daemon
fails all the same. What no daemon took it holds on, a child too. A guard that was stopped is woken by the
next daemon, and ended if it does not wake. A daemon that was stopped and continues refuses every
command until it has made everything safe itself and ended the leases. After an orderly stop a guard that is
a service keeps holding the lines; a child ends, since nobody expects a process to stay behind, and the lines
are the hardware's again.

What software cannot do, and the remedy:

- All buses: in a power cut, a kernel panic, behind a cut wire nothing acts. Use actuators that are safe
  without power or signal (a spring-return valve, a normally open relay); for the panic also the board's own
  watchdog (`RuntimeWatchdogSec=` of systemd).
- All buses: daemon and guard may be killed in one instant, as a child guard is with all of its service. Run
  the guard as a service: it is started again at once and does what the one before has noted in its runtime
  directory. It opens serial ports for that, which resets a far end that watches DTR.
- All buses: a daemon that was stopped in the microseconds between a command's last check and its write goes
  on with that write when it continues. It is undone at once, when everything is made safe again.
- gpio: when the last holder of a line has gone, the kernel's driver of the chip decides: an input, or the
  last level. Give the line an outer pull towards safe, and let the guard be a service.
- gpio: at a restart a line is free for less than a millisecond, between the guard's letting go and the
  daemon's claim. The same pull.
- gpio with `backend = "gpiozero"`: on lgpio as above. The other pin factories write the chip's registers and
  hold no line; the guard claims it when it has to act.
- gpio, pulses made in software: they end with the daemon, and the line is kept off (fully on where that is
  safe). `check` refuses a safe duty in between; name a hardware channel, which goes on by itself.
- spi, and drivers without a bus: not guarded, which `check` says.
- i2c: nothing arrives over an adapter that hangs, or while a chip holds the bus low. What must be safe even
  then needs its output-enable or reset pin on a guarded GPIO line.
- serial: nobody reads the answer, and half a command of the dying daemon may spoil the first line. Use a
  far end that goes safe when it hears nothing.
- mqtt: the broker's acknowledgement is the end of what can be known. Keep the broker on the board, and use
  devices with a time-out of their own.
"""

PROTOCOL = 2
"""Version of the messages between daemon and guard; a guard with another one is told to end."""
