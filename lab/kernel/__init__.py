"""Virtual machines in software emulation, on which every host phase runs for real. README.md beside this file."""
