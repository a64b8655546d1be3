"""Side by side with peers, one JSON line each: `python -m benchmarks.NAME`."""
