"""MQTT: one connection a broker, shared by the devices behind it; topics to samples, setpoints to commands."""
