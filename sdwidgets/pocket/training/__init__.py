"""How Pocket is trained, part by part, from scratch: `python -m sdwidgets train`."""
