"""`python -m sim_devices.market`."""

import sys

from sim_devices.market.process import main

sys.exit(main(sys.argv[1:]))
