"""The chargers of a site's twins that call a central system: where each of them calls, and what the gateway is told."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import AsyncExitStack
from typing import Any, Final

from config.site import OcppConnector
from config.vocabulary import Clock
from sim_devices.models import ChargerModel
from sim_devices.ocpp_charger import OcppCharger

LOOPBACK: Final = "127.0.0.1"
_EVERYWHERE: Final = ("0.0.0.0", "::")


class OcppEndpoints:
    """Makes charge points that call the gateway: where the site file has it listen (`declared`), or else in plain at a
    port of loopback that is kept free for it, one for each listener of the site file, until `stack` is left.
    """

    def __init__(self, stack: AsyncExitStack, clock: Clock, *, declared: bool, seed: int) -> None:
        self._stack = stack
        self._clock = clock
        self._declared = declared
        self._seed = seed
        self._ports: dict[tuple[str, int], int] = {}

    def charger(self, model: ChargerModel, address: OcppConnector) -> tuple[OcppCharger, dict[str, Any]]:
        """A charge point, and the address that a driver is given.

        Raises OSError when no port can be had, or a certificate can't be read; ValueError for a port that isn't known.
        """
        told = address
        if not self._declared:
            port = self._free_port((address.listen_host, address.listen_port))
            told = address.model_copy(update={"listen_host": LOOPBACK, "listen_port": port, "tls": None})
        elif address.listen_port == 0:
            raise ValueError("address.listen_port: 0 tells nobody where to call")
        host = LOOPBACK if told.listen_host in _EVERYWHERE else told.listen_host
        scheme = "ws" if told.tls is None else "wss"
        charger = OcppCharger(
            model,
            self._clock,
            url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{told.listen_port}/ocpp",
            identity=address.charge_point,
            password=os.environ.get(address.password_env) if address.password_env is not None else None,
            tls=None if told.tls is None else _trusting(told.tls.cert_file),
            id_tag=address.id_tags[0] if address.id_tags else None,
            seed=self._seed,
        )
        return charger, told.model_dump(mode="json")

    def _free_port(self, declared: tuple[str, int]) -> int:
        if declared not in self._ports:
            # Bound and not listening, it is given to nobody else, and the gateway may still listen there.
            kept = socket.socket()
            self._stack.callback(kept.close)
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind((LOOPBACK, 0))
            self._ports[declared] = kept.getsockname()[1]
        return self._ports[declared]


def _trusting(certificate: str) -> ssl.SSLContext:
    """Trust in this very certificate, whatever name it was called by."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return context
