"""What a span of layers may become, and what an engine then runs. No torch."""
