"""Commissioning: find devices, read and write them by hand, try a profile on them, and measure how they respond."""
