"""Everything that can run a model, behind one protocol, each in a process of its own."""
