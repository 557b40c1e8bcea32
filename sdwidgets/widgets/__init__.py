"""Views over a `Trace`, one a file, and the Playground, which drives a pipeline.

All share one style (`look.css`) and one scrubber (`replay.js`); no build step stands between them and a browser.
"""
