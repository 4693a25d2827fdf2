"""A cable between two network namespaces of this machine: so many bits a second, so long on the way, and it can be unplugged.

`tc`'s netem would do it where the kernel has that (CONFIG_NET_SCH_NETEM); this needs only TUN devices and namespaces, and
root. Packets are kept by a process of its own until they are due. A second namespace on the same processors shares them,
so what is measured over it has real messages and real waits, but not a second machine's arithmetic.
"""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import select
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType

MTU = 9000  # bytes of a packet: few enough for Python at a gigabit a second
BACKLOG = 0.05  # seconds of traffic that wait to be sent before packets are dropped, as a switch's port does
_TUNSETIFF, _TUN, _NO_HEADER, _NEW_NETWORK = 0x400454CA, 0x0001, 0x1000, 0x40000000


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: expected it to work (as root), found: {done.stderr.strip()}")


class Cable:
    """Two namespaces and what lies between them; a context manager that takes both away again.

    Args:
        hosts: the namespaces' names; their addresses are 10.77.0.1 and 10.77.0.2.
        rate: bits a second, each way.
        delay: seconds on the way, each way.
    """

    def __init__(self, hosts: Sequence[str], rate: float, delay: float) -> None:
        self.hosts, self.rate, self.delay = list(hosts), rate, delay
        self.addresses = [f"10.77.0.{k + 1}" for k in range(2)]
        self.plugged = multiprocessing.Value("b", 1)
        self.carried = multiprocessing.RawArray("d", 2)  # bytes from each host, headers included

    def __enter__(self) -> Cable:
        ends = []
        for host, address in zip(self.hosts, self.addresses):
            _run("ip", "netns", "add", host)
            ends.append(_tun(host, "cable"))
            _run("ip", "-n", host, "link", "set", "lo", "up")
            _run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "cable")
            _run("ip", "-n", host, "link", "set", "cable", "mtu", str(MTU), "txqueuelen", "10000", "up")
        self.process = multiprocessing.Process(target=self._carry, args=(ends,), daemon=True)
        self.process.start()
        for end in ends:
            os.close(end)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)

    def _carry(self, ends: list[int]) -> None:
        """Take packets off both ends and put each into the other when it has arrived there."""
        under_way: list[deque[tuple[float, bytes]]] = [deque(), deque()]
        free = [0.0, 0.0]  # when each end has sent what it has taken
        while True:
            dues = [queue[0][0] for queue in under_way if queue]
            wait = max(min(dues) - time.monotonic(), 0.0) if dues else 1.0
            ready, _, _ = select.select(ends, [], [], wait)
            now = time.monotonic()
            for k, end in enumerate(ends):
                for packet in _packets(end) if end in ready else ():
                    free[k] = max(free[k], now)
                    if self.plugged.value and free[k] - now < BACKLOG:
                        free[k] += 8 * len(packet) / self.rate
                        under_way[k].append((free[k] + self.delay, packet))
                        self.carried[k] += len(packet)
                while under_way[k] and under_way[k][0][0] <= now:
                    os.write(ends[1 - k], under_way[k].popleft()[1])


def _packets(end: int) -> Iterator[bytes]:
    """What an end has sent, a few packets at most, so that others don't wait long for their delivery."""
    for _ in range(16):
        try:
            yield os.read(end, MTU + 100)
        except BlockingIOError:
            return


def _tun(host: str, name: str) -> int:
    """A new TUN device of a namespace, as a file that reads what is sent into it and writes what it shall receive."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{host}", os.O_RDONLY)
    try:
        if libc.setns(there, _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"{host}: expected a network namespace that can be entered")
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22s", name.encode(), _TUN | _NO_HEADER, b""))
        return device
    finally:
        libc.setns(home, _NEW_NETWORK)
        os.close(home)
        os.close(there)
