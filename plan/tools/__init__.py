"""The tool stack of a cluster, as data. Start at `catalogue.catalogue` and `inputs.tool_inputs`."""
