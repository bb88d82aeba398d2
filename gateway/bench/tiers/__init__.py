"""Three tiers on one machine: the demo, and how fast and how well what is asked at the top arrives below."""
