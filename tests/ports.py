"""Ports of this machine."""

import socket
from pathlib import Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listening(port: int) -> set[str]:
    """The addresses, in hexadecimal, on which this port is listened at."""
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    sockets = [line.split() for line in lines]
    return {of[1].split(":")[0] for of in sockets if of[3] == "0A" and of[1].endswith(f":{port:04X}")}
