"""How fast a device runs models of the published shapes, with random weights: no file is needed."""
