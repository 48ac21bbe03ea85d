"""Reading thoughts: collect them, read them in several ways, change them, and say how far each reading may be trusted."""
