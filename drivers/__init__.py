"""Links and protocol drivers: they know points and profiles, no device by name, and nothing of control."""
