"""`gateway bench`: what this machine takes for a cycle, a dispatch, a decision, a plan, many twins, many children."""
