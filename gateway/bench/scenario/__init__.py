"""Scenarios: a site, events in time and checks as data, run in real time or in lockstep and judged by the physics."""
