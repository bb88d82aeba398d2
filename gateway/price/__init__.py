"""The local price of a layer: interchange costs, the price's parts, and the property the seed paper asks of it."""
