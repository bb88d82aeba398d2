"""The bottom of Lamina: the vocabulary, the layer interface, and the schemas of sites, profiles and twins."""
