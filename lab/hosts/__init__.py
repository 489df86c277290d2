"""The lab's hosts: network namespaces, overlay mounts and nspawn machines after a plan."""
