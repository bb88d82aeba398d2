"""OPC UA: one client a server, subscriptions for what is fast, batched reads for what is slow, batched writes."""
