"""The edge process: image, control cycle, parent interface, journal, and the commands around them."""
