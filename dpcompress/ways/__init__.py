"""What a span of layers may become: one file per way, and the programs that an engine
then runs. No torch."""
