"""What a pipeline computes, part by part: computed and never drawn."""
