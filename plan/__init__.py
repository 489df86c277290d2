"""The plan: a pure function of the settings. Nothing here imports pulumi, looks at a clock, or reads a file of the user's."""
