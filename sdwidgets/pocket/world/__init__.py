"""The finite, fully known world that Pocket is trained on: words, pictures, scenes, where things stand, and how many of each there are."""
