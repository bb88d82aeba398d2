"""The bench: what a run on twins shows, measured from the physics and from what the DSO sent."""
