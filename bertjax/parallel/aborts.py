"""Holds back the abort with which JAX ends a process that loses its coordinator.

JAX's client terminates its process from C++ as soon as the connection to the coordinator breaks, by SIGABRT, with a
page of stack. No public call changes that: `jax.distributed.initialize` has no callback for it, its timeouts are of
heartbeats, and the flag `jax_enable_recoverability` concerns the service alone. Seen with jax 0.10.2, two processes
on CPUs: process 0 killed, the other aborts in 0.3 to 0.4 s, with the flag and without, idle and in a collective;
process 1 killed, process 0 is not ended for 25 s and more. So the signal is held back for as long as the process
group needs to hear of the death itself and to end the process with its own line.
"""

import ctypes
import signal


def delay_aborts() -> None:
    """Lets SIGABRT end this process six seconds after it comes.

    C's `sleep` is made its handler: called with the signal's number, it sleeps for as many seconds. A handler in Python
    would not do: it runs in the main thread, which may wait in a collective for ever.
    """
    c = ctypes.CDLL(None)
    c.signal(signal.SIGABRT, c.sleep)
