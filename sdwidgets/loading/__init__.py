"""From a name to a pipeline: models, files, devices, and sentences for what goes wrong."""
