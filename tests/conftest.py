"""What holds for all tests."""

import signal

# A shell that starts the tests in the background has them, and the programs they start, ignore SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
