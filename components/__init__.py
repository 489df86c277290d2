"""The resources: each component takes frozen arguments of plain values and Inputs, and declares what it outputs."""
