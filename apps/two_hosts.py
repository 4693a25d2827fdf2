"""Two hosts train one scene over a slow cable; one is cut off and comes back: `python -m apps.two_hosts --scene DIR`.

The hosts are network namespaces of this machine (apps/cable.py), each with a folder of its own for the run and half of the
processors. `torchrun` starts a process on each. After --cut steps the cable is pulled: the first host notices, goes on
alone from the last whole step, and takes the second one in again once the cable is back. Needs Linux and root.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from apps.cable import Cable

HOSTS = ("alpha", "beta")
PORT = 29400
ECHO = """
import socket, sys, time
server = socket.create_server(("", {port}))
peer, _ = server.accept()
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(20):
    peer.sendall(peer.recv(1))
while peer.recv(1 << 20):
    pass
"""
PROBE = """
import json, socket, time
peer = socket.create_connection(("{address}", {port}))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
trips = []
for _ in range(20):
    began = time.perf_counter()
    peer.sendall(b"x")
    peer.recv(1)
    trips.append(time.perf_counter() - began)
began = time.perf_counter()
for _ in range(200):
    peer.sendall(bytes(1 << 20))
peer.shutdown(socket.SHUT_WR)
peer.recv(1)
print(json.dumps([sorted(trips)[10], 200 * (1 << 23) / (time.perf_counter() - began)]))
"""


@dataclass(frozen=True)
class Options:
    """Train a scene on two hosts, cut one off, and let it come back."""

    scene: Path
    """Folder of posed photos."""
    steps: int = 600
    """Of the whole run."""
    cut: int = 60
    """The step after which the cable is pulled; 0: never."""
    back: int = 40
    """Steps that the first host takes alone before the cable is back."""
    downscale: int = 8
    """Read the photos reduced by this whole factor."""
    rate: float = 1e9
    """Bits a second that the cable carries each way."""
    delay: float = 0.01
    """Seconds on the way, each way."""
    out: Path | None = None
    """Folder for both hosts' runs and logs. Default: a temporary one."""


class Host:
    """One host's torchrun, started again whenever it ends with a fault, as a service manager would."""

    def __init__(self, name: str, cable: Cable, options: Options, place: Path) -> None:
        self.name, self.log = name, place / f"{name}.log"
        k = HOSTS.index(name)
        # An agent whose store is silent for longer than read_timeout gives up, and takes the rendezvous down where it can.
        conf = f"is_host={1 - k},last_call_timeout=10,read_timeout=900"
        self.command = [
            "ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=cable", "OMP_NUM_THREADS=1",
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "9",
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{cable.addresses[0]}:{PORT}", "--rdzv-id", place.name,
            "--rdzv-conf", conf, "--local-addr", cable.addresses[k],
            "-m", "nerf.train", "--scene", str(options.scene), "--steps", str(options.steps), "--no-video",
            "--downscale", str(options.downscale), "--out", str(place / name),
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start torchrun."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)

    def lives(self) -> bool:
        """Whether it runs, or has ended without a fault."""
        return self.process.poll() in (None, 0)

    def said(self) -> str:
        """All that it has said."""
        return self.log.read_text(errors="replace")

    def step(self) -> int:
        """The last step that it has told."""
        return int(["0", *re.findall(r"step (\d+),", self.said())][-1])

    def meetings(self) -> int:
        """How often it has begun to train with the other host."""
        return self.said().count("2 processes train together")


def measure(cable: Cable) -> tuple[float, float]:
    """Seconds there and back, and bits a second, between two programs at the cable's ends."""
    inside = [["ip", "netns", "exec", host, sys.executable, "-c"] for host in HOSTS]
    echo = subprocess.Popen([*inside[1], ECHO.format(port=5000)])
    time.sleep(1.0)
    probe = PROBE.format(address=cable.addresses[1], port=5000)
    done = subprocess.run([*inside[0], probe], capture_output=True, text=True, check=True)
    echo.wait()
    there_and_back, rate = json.loads(done.stdout)
    return there_and_back, rate


def tune(host: str) -> None:
    """What a slow network wants of a host: no new slow start at every step, and to try again soon after an outage."""
    for name, value in (("tcp_slow_start_after_idle", 0), ("tcp_rto_max_ms", 5000)):
        place = f"/proc/sys/net/ipv4/{name}"
        if Path(place).exists():  # the second one is Linux 6.15's
            write = f"open({place!r}, 'w').write('{value}')"
            subprocess.run(["ip", "netns", "exec", host, sys.executable, "-c", write], check=True)


class Story:
    """Says what happens, with the seconds since the start, and waits for what shall happen next."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts, self.began = hosts, time.monotonic()

    def say(self, text: str) -> None:
        """A line."""
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def until(self, there: Callable[[], bool], what: str, longest: float = 300.0) -> None:
        """Wait, and start again what has failed meanwhile."""
        late = time.monotonic() + longest
        while not there():
            for host in self.hosts:
                if not host.lives():
                    self.say(f"{host.name}'s torchrun ended with code {host.process.poll()}; started again")
                    host.start()
            if self.hosts[0].process.poll() == 0 and not there():
                raise TimeoutError(f"expected {what}, found the run at its end; more --steps leave time for it")
            if time.monotonic() > late:
                raise TimeoutError(f"expected {what} within {longest:.0f} s; the logs are {self.hosts[0].log.parent}")
            time.sleep(0.2)
        self.say(what)


def tell(options: Options, cable: Cable, place: Path) -> None:
    """The whole story."""
    for name in HOSTS:
        tune(name)
    there_and_back, rate = measure(cable)
    print(f"cable: {1e3 * there_and_back:.1f} ms there and back, {rate / 1e6:.0f} Mbit/s between two programs")
    story = Story([Host(name, cable, options, place) for name in HOSTS])
    first = story.hosts[0]
    try:
        story.until(lambda: first.meetings() > 0 and first.step() > 0, "both hosts train")
        step, carried, began = first.step(), sum(cable.carried), time.monotonic()
        end = options.cut or options.steps
        story.until(lambda: first.step() >= end, f"step {end}")
        taken, seconds = first.step() - step, time.monotonic() - began
        each = (sum(cable.carried) - carried) / 2 / taken
        story.say(f"{1e3 * seconds / taken:.0f} ms a step; the cable carried {each / 1e6:.2f} MB a step each way")
        if options.cut:
            cable.plugged.value = 0
            at = first.step()
            story.say(f"the cable is pulled at step {at}")
            story.until(lambda: "lost" in first.said() and first.step() > at + 5, "alpha trains alone")
            story.until(lambda: first.step() >= at + options.back, f"step {at + options.back}, alone")
            cable.plugged.value = 1
            before = first.meetings()
            story.say("the cable is back")
            story.until(lambda: first.meetings() > before, "both hosts train together again")
            step, carried = first.step(), sum(cable.carried)
            story.until(lambda: first.step() >= options.steps, f"step {options.steps}")
            each = (sum(cable.carried) - carried) / 2 / max(options.steps - step, 1)
            story.say(f"the cable carried {each / 1e6:.2f} MB a step each way since they met again")
        story.until(lambda: all(host.process.poll() == 0 for host in story.hosts), "both have ended without a fault")
    finally:
        for host in story.hosts:
            host.process.terminate()
    metrics = json.loads((place / HOSTS[0] / "metrics.json").read_text())
    print(
        f"{metrics['psnr']:.2f} dB on {len(metrics['views'])} views after {metrics['steps']} steps; "
        f"{metrics['bytes_per_step'] / 1e6:.2f} MB a step by its own count, since the hosts last met"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code: 0, 2 where namespaces can't be had."""
    options = tyro.cli(Options, args=arguments, prog="python -m apps.two_hosts")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that hosts and cable are taken away then too
    try:
        with tempfile.TemporaryDirectory() as temporary, Cable(HOSTS, options.rate, options.delay) as cable:
            place = (options.out or Path(temporary) / "two_hosts").resolve()
            place.mkdir(parents=True, exist_ok=True)
            tell(options, cable, place)
    except (OSError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
