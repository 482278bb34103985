"""What all tests share."""

import signal

# A shell's background job, which a test run may be, ignores Ctrl-C, and so would the programs to which tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
