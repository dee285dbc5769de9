"""What holds for all tests."""

import signal

from hypothesis import settings

# A shell that starts the tests in the background has them, and the programs they start, ignore SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine takes longer than 200 ms for many an example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
