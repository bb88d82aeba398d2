"""Studies: the same fleet and day under different ways of running a grid, and layers against the central optimum."""
