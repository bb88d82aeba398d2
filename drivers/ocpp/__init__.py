"""OCPP 1.6J: a port at which chargers call; status and meter values to samples, setpoints to charging profiles."""
