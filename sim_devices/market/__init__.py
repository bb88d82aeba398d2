"""Market twins: an operator above several layers that clears their offers and dispatches them, as DSO or as TSO.

Like the DSO twin it reads and writes the layer interface's JSON by hand, and it has a clearing of its own, so that one
mistake in the gateway's can't hide on both sides.
"""
