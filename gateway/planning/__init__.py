"""The planner: a convex program over the coming day or two, in a process of its own, whose duals become curves."""
