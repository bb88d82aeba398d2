"""A twin, its clock and a client that knows nothing of Lamina: what the tests of inverter twins stand on."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymodbus.client import AsyncModbusTcpClient

from config.twin import DeviceTwin
from sim_devices.modbus import ModbusTwin, start_modbus_twin
from sim_devices.models import BatteryModel, InverterModel

STEP_S = 0.1
UNIT = 3


class Box:
    """One device by its address: reads and writes registers, and lets time pass."""

    def __init__(
        self, model: BatteryModel | InverterModel, twin: ModbusTwin, client: AsyncModbusTcpClient, clock: list[float]
    ) -> None:
        self.model = model
        self.twin = twin
        self.client = client
        self._clock = clock

    @property
    def battery(self) -> BatteryModel:
        assert isinstance(self.model, BatteryModel)
        return self.model

    @property
    def pv(self) -> InverterModel:
        assert isinstance(self.model, InverterModel)
        return self.model

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        for _ in range(round(duration_s / STEP_S)):
            self._clock[0] += STEP_S
            self.model.step(STEP_S, self._clock[0])

    async def words(self, address: int, count: int = 1, table: str = "holding") -> list[int] | int:
        """Registers, or the exception's code."""
        ask = self.client.read_holding_registers if table == "holding" else self.client.read_input_registers
        response = await ask(address, count=count, device_id=UNIT)
        return response.exception_code if response.isError() else list(response.registers)

    async def value(self, address: int, form: str = "H", words: str = "big", table: str = "holding") -> float:
        """A number by its struct code."""
        registers = await self.words(address, struct.calcsize(form) // 2, table)
        assert isinstance(registers, list), f"{address}: exception {registers}"
        ordered = registers if words == "big" else registers[::-1]
        number: float = struct.unpack(">" + form, struct.pack(f">{len(ordered)}H", *ordered))[0]
        return number

    async def write(self, address: int, value: float, form: str = "H", words: str = "big") -> int:
        """Write a number with function 16; 0, or the exception's code."""
        size = struct.calcsize(form) // 2
        packed = struct.pack(">" + form, value if form in "fd" else int(value))
        registers = list(struct.unpack(f">{size}H", packed))
        response = await self.client.write_registers(
            address, registers if words == "big" else registers[::-1], device_id=UNIT
        )
        return response.exception_code if response.isError() else 0

    async def write_single(self, address: int, value: int) -> int:
        """Write one register with function 6; 0, or the exception's code."""
        response = await self.client.write_register(address, value, device_id=UNIT)
        return response.exception_code if response.isError() else 0


def a_battery(name: str = "battery", phases: tuple[int, ...] = (1, 2, 3), soc: float = 0.5) -> BatteryModel:
    return BatteryModel(name, 10_000.0, DeviceTwin(tr90_s=0.1, soc=soc), capacity_wh=20_000.0, phases=phases)


def sunshine(name: str = "pv") -> InverterModel:
    model = InverterModel(name, 10_000.0, DeviceTwin(tr90_s=0.1))
    model.available_pu = 0.9
    model.settle()
    return model


@asynccontextmanager
async def box(profile: str, model: BatteryModel | InverterModel) -> AsyncIterator[Box]:
    """The twin of a profile on a socket."""
    clock = [100.0]
    twin = await start_modbus_twin(profile, model, unit=UNIT, clock=lambda: clock[0])
    client = AsyncModbusTcpClient("127.0.0.1", port=twin.port, timeout=2, retries=0)
    await client.connect()
    try:
        yield Box(model, twin, client, clock)
    finally:
        client.close()
        await twin.close()
