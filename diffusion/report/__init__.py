"""What a run draws: grids, curves, and its page."""
