"""What is measured, and how. `python -m bench` for this machine's CPU, `python bench/gpu.py` for a GPU."""
