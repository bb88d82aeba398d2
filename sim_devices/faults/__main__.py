"""Runs one fault proxy as this process."""

import sys

from sim_devices.faults.process import main

if __name__ == "__main__":
    sys.exit(main())
