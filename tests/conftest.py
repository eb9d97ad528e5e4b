"""What holds for every test."""

import signal

# A shell ignores Ctrl-C in what it runs in the background, and so would all programs that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
