"""The DSO twin: an independent parent that plays a script of orders over MQTT and checks what the layer answers.

It writes and reads the layer interface's JSON by hand, without the message schemas that the gateway uses, so that one
mistake in those can't hide on both sides.
"""
