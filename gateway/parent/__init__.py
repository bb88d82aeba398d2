"""The parent interface: orders in, offer, telemetry and acknowledgements out. It never sees a device."""
