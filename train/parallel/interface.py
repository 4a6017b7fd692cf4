"""The network interface over which processes of several machines talk to each other."""

import os
import socket
import struct
import sys
from contextlib import suppress

with suppress(ImportError):  # Windows; used on Linux alone
    import fcntl

SIOCGIFADDR = 0x8915  # Linux: an interface's address


def choose_interface(meeting_point: str) -> None:
    """Let gloo use the interface that leads to the meeting point, unless GLOO_SOCKET_IFNAME names another.

    By itself it takes that of the host's name, which on many machines is the loopback.
    """
    if name := interface_of(own_address(meeting_point)):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def own_address(peer: str) -> str:
    """This machine's IPv4 address as `peer` (a name or an address) sees it; empty if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer, 9))  # nothing is sent
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """The interface with an IPv4 address; empty if there is none, or no way to ask."""
    if sys.platform != "linux":
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
