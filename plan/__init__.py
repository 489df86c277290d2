"""The plan: a pure function of the settings. Nothing here imports pulumi, reads a file or looks at a clock."""
