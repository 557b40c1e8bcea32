"""What Pocket says of itself: the model card, the datasheet for people, and their figures."""
