"""Orders: taken or refused, held until they end, remembered over a restart."""
