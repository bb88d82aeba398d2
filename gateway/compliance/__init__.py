"""Compliance functions: grid rules as pure state machines, without a clock of their own."""
