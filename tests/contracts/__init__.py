"""Laws, each stated once as a test class; whoever keeps them inherits the class and gives a fixture."""
