"""The Playground: a live pipeline with controls and a scrubber."""
