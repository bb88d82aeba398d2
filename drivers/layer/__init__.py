"""A layer below, as its parent: over MQTT, telemetry and offers become samples, shares become dispatches."""
