"""All of a site behind proxies: one in front of each connection to a device and of the parents' broker.

Run as a module, it is the process of a bench that has them all, with one control port: one line says where they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from config.findings import ConfigError
from config.loading import load_profiles, load_site
from config.profile import Profile
from config.site import Address, ModbusAddress, ModbusRtuAddress, MqttDevice, OcppConnector, OpcUaServer, Site
from sim_devices.faults.board import FaultBoard, Placed
from sim_devices.faults.control import FaultControl
from sim_devices.faults.control_file import ControlFile
from sim_devices.faults.control_topic import ControlTopic
from sim_devices.faults.fault import FaultError
from sim_devices.faults.modbus_speech import ModbusUnderstanding
from sim_devices.faults.mqtt_speech import MqttUnderstanding
from sim_devices.faults.ocpp_speech import OcppUnderstanding
from sim_devices.faults.registry import MQTT, OCPP
from sim_devices.faults.schedule import FaultEvent
from sim_devices.faults.serial_proxy import SerialFaultProxy
from sim_devices.faults.speech import Understanding
from sim_devices.faults.targets import (
    BROKER,
    Link,
    addresses_of,
    check_fault,
    fault_targets,
    links_of,
    parent_targets,
    place_of,
    target_of,
)
from sim_devices.faults.tcp_proxy import TcpFaultProxy
from sim_devices.port_holders import reason
from sim_devices.until import end_of_process, ended

_ANYWHERE: Final = ("127.0.0.1", 0)

__all__ = ["BROKER", "FaultEvent", "FaultWorld", "check_fault", "fault_targets"]


class FaultWorld:
    """Puts proxies in front of a site, for as long as it is entered; see the package for how it is used.

    `control_port`: where the control port is, 0 for any, None for none. `only`: the devices that get a proxy, None for
    all. `listen_at`: where the proxy of a device is to listen; a free port of loopback where it doesn't say. Raises
    OSError when a place can't be had, and FaultError for endpoints that aren't addresses.
    """

    def __init__(
        self,
        site: Site,
        profiles: Mapping[str, Profile],
        endpoints: Mapping[str, Any] | None = None,
        broker: tuple[str, int] | None = None,
        *,
        seed: int = 0,
        control_port: int | None = 0,
        only: Collection[str] | None = None,
        listen_at: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self.board = FaultBoard({})
        self.broker: tuple[str, int] | None = None
        self.endpoints: dict[str, Any] = {}
        self.control: FaultControl | None = None
        self._site = site
        self._seed = seed
        self._twins = dict(endpoints or {})
        self._addresses = addresses_of(site, self._twins)
        self._behind = {name: it for name, it in self._addresses.items() if only is None or name in only}
        self._links = links_of(site, profiles, self._behind)
        self._listen_at = dict(listen_at or {})
        self._target_broker = broker
        self._control_port = control_port
        self._stack = AsyncExitStack()
        self._timers: list[asyncio.TimerHandle] = []

    async def __aenter__(self) -> FaultWorld:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Take every proxy away."""
        for timer in self._timers:
            timer.cancel()
        await self._stack.aclose()

    def set(self, device: str, fault: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Set a fault on a device, a parent or the broker; its id. Raises FaultError."""
        return self.board.set(device, fault, parameters)

    def clear(self, device: str | None = None, what: int | str | None = None) -> int:
        """Clear a fault by name or id (None: all) on a device (None: on all); how many were in force."""
        return self.board.clear(device, what)

    def status(self) -> dict[str, Any]:
        """What passed each proxy and which faults are and were in force."""
        return self.board.status()

    def schedule(self, events: Iterable[FaultEvent], start_s: float) -> None:
        """Let faults come and go by the loop's time, `start_s` on; raises FaultError, and nothing is scheduled."""
        events = list(events)
        problems: list[str] = []
        for event in events:
            try:
                if not event.clear:
                    self.board.check(event.device, event.fault, event.parameters)
                elif event.device not in self.board.placed:
                    self.board.clear(event.device, event.fault)
            except FaultError as error:
                problems.append(f"at {event.at_s:g} s: {event.device}: {error}")
        if problems:
            raise FaultError("\n".join(problems))
        loop = asyncio.get_running_loop()
        self._timers += [loop.call_at(start_s + event.at_s, self._apply, event) for event in events]

    def announcement(self) -> dict[str, Any]:
        """Where everything is, as `gateway twins` says it, with the broker and the control port of the faults."""
        said = dict(self._twins) | {"endpoints": self.endpoints}
        if self.broker is not None:
            said["broker"] = {"host": self.broker[0], "port": self.broker[1]}
        if self.control is not None:
            said["faults"] = {"host": self.control.host, "port": self.control.port}
        return said

    def _apply(self, event: FaultEvent) -> None:
        if event.clear:
            self.board.clear(event.device, event.fault)
        else:
            self.board.set(event.device, event.fault, event.parameters)

    async def _start(self) -> None:
        placed: dict[str, Placed] = {}
        for link in self._links.values():
            proxy = await self._proxy(link)
            for device in link.devices:
                placed[device.name] = Placed(target_of(device, link), proxy)
                self.endpoints[device.name] = _readdressed(self._addresses[device.name], proxy)
        without = {name: _why_not(name, it) for name, it in self._addresses.items() if name not in placed}
        self.endpoints |= {name: self._addresses[name].model_dump(mode="json") for name in without}
        if self._target_broker is not None:
            proxy = await self._tcp(self._target_broker, MQTT, MqttUnderstanding(), BROKER, _ANYWHERE)
            self.broker = (proxy.host, proxy.port)
            for name, target in parent_targets(self._site).items():
                placed.setdefault(name, Placed(target, proxy))
        self.board = FaultBoard(placed, without)
        if self._control_port is not None:
            self.control = FaultControl(self.board)
            await self.control.start(self._control_port)
            self._stack.push_async_callback(self.control.close)

    async def _proxy(self, link: Link) -> TcpFaultProxy | SerialFaultProxy:
        address, name = link.address, link.devices[0].name
        if isinstance(address, OcppConnector):
            return await self._called(address, link, name)
        understanding = _understanding(link)
        if not isinstance(address, ModbusRtuAddress):
            at = next((self._listen_at[each.name] for each in link.devices if each.name in self._listen_at), _ANYWHERE)
            return await self._tcp(place_of(address), address.driver, understanding, name, at)
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="lamina-faults-")))
        proxy = SerialFaultProxy(
            address.device, folder / "line", baud=address.baud, parity=address.parity, seed=f"{self._seed}/{name}",
            understanding=understanding,
        )  # fmt: skip
        self._stack.push_async_callback(proxy.close)
        return proxy

    async def _called(self, address: OcppConnector, link: Link, name: str) -> TcpFaultProxy:
        """A proxy where chargers call, in place of the gateway, which is told to listen at a port kept free for it."""
        kept = socket.socket()
        self._stack.callback(kept.close)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(_ANYWHERE)
        understanding = OcppUnderstanding(link.devices) if address.tls is None else None
        proxy = TcpFaultProxy(
            kept.getsockname(), protocol=OCPP, seed=f"{self._seed}/{name}", understanding=understanding,
            called_by_device=True,
        )  # fmt: skip
        self._stack.push_async_callback(proxy.close)
        host, port = place_of(address)
        try:
            await proxy.listen(host, port)
        except OSError as error:
            raise FaultError(f"{name}: {host}:{port}: {reason(error, port)}") from error
        return proxy

    async def _tcp(
        self, target: tuple[str, int], protocol: str, understanding: Understanding, name: str, at: tuple[str, int]
    ) -> TcpFaultProxy:
        seed = f"{self._seed}/{name}"
        proxy = TcpFaultProxy(target, protocol=protocol, seed=seed, understanding=understanding)
        self._stack.push_async_callback(proxy.close)
        await proxy.listen(*at)
        return proxy


def _why_not(name: str, address: Address) -> str:
    if isinstance(address, OcppConnector):
        return f"{name} calls us by {address.driver} at a port that nobody knows: address.listen_port is 0"
    return f"{name} has no proxy here"


def _understanding(link: Link) -> Understanding:
    if isinstance(link.address, ModbusAddress):
        return ModbusUnderstanding(link.address.driver, link.devices)
    if isinstance(link.address, MqttDevice):
        return MqttUnderstanding(link.devices)
    # Imported for sites that use it alone: its library costs 80 MB and a second.
    from sim_devices.opcua_speech import UaUnderstanding

    return UaUnderstanding(link.devices)


def _readdressed(address: Address, proxy: TcpFaultProxy | SerialFaultProxy) -> dict[str, Any]:
    said = address.model_dump(mode="json")
    if isinstance(address, OpcUaServer) and isinstance(proxy, TcpFaultProxy):
        parts = urlsplit(address.url)
        return said | {"url": parts._replace(netloc=f"{proxy.host}:{proxy.port}").geturl()}
    if isinstance(address, OcppConnector) and isinstance(proxy, TcpFaultProxy):
        return said | {"listen_host": proxy.target[0], "listen_port": proxy.target[1]}
    return said | proxy.endpoint


async def serve_world(options: argparse.Namespace) -> None:
    """Serve until the process is told to end; raises ConfigError, FaultError or OSError for what the user can mend."""
    site = load_site(options.site)
    by_reference = load_profiles(site, options.site)
    profiles = {name: by_reference[device.profile] for name, device in site.devices.items()}
    endpoints = _endpoints(options.endpoints)
    until = end_of_process(until_eof=options.until_eof)
    async with FaultWorld(
        site, profiles, endpoints, options.broker, seed=options.seed, control_port=options.control
    ) as world:
        tasks: list[asyncio.Task[None]] = []
        if options.file is not None:
            watched = ControlFile(world.board, options.file, _warn)
            tasks.append(asyncio.create_task(watched.run(), name="faults file"))
        if options.broker is not None:
            topic = ControlTopic(world.board, site.site, options.broker)
            tasks.append(asyncio.create_task(topic.run(), name="faults topic"))
        try:
            line = json.dumps(world.announcement() | {"pid": os.getpid()})
            if options.announce is not None:
                await asyncio.to_thread(options.announce.write_text, line + "\n")
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            await until.wait()
        finally:
            await ended(*tasks)
            if options.announce is not None:
                options.announce.unlink(missing_ok=True)


def _endpoints(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FaultError(f"--endpoints {path}: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("endpoints", {}), dict):
        raise FaultError(f"--endpoints {path}: expected the line that the twins print")
    return said


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim_devices.faults.world", description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("--endpoints", type=Path, metavar="FILE", help="the line that the twins print")
    parser.add_argument("--broker", type=_host_and_port, metavar="HOST:PORT", help="the parents' broker")
    parser.add_argument("--control", type=int, default=0, metavar="PORT", help="control port; default a free one")
    parser.add_argument("--file", type=Path, metavar="FILE", help="a list of faults that is watched")
    parser.add_argument("--announce", type=Path, metavar="FILE", help="where everything is, also in this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proxies of a site as this process; returns the exit code: 0 ended as told, 2 bad input."""
    options = _options(argv)
    try:
        uvloop.run(serve_world(options))
    except (ConfigError, FaultError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{os.strerror(error.errno) if error.errno else error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
