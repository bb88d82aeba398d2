"""What a run shows: `report.json`, and the page with its figures."""
