"""Modbus: links, register plans and the driver; SunSpec models resolve to registers."""
