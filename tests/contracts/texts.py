"""Three texts that have nothing to do with one another."""

PUMP = "The blue pump in the cellar runs at nine bar."
BOAT = "The grey boat leaves the harbour every Tuesday."
CAKE = "The almond cake needs eleven eggs."
