"""Settlement: metered energy at the local price, contracts for difference, a double-entry ledger in whole numbers."""
