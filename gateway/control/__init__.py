"""Control: pure functions of images, orders and state; no clock, no input or output, no asyncio."""
