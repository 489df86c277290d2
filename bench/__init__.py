"""Speed and memory as figures, each beside its baseline measured in the same run. Not a test: nothing passes or fails."""
