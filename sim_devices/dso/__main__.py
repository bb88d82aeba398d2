"""`python -m sim_devices.dso`."""

import sys

from sim_devices.dso.process import main

sys.exit(main(sys.argv[1:]))
