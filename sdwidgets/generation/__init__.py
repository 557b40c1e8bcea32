"""From settings to pictures: what a pipeline can be given, checked, in many, and written down as code."""
