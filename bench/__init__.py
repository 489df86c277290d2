"""Speed and memory as figures, each beside its baseline of the same run. Not a test: nothing passes or fails."""
