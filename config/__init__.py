"""Stack settings: the only place where a stack's configuration is read.

`load()` turns `pulumi.Config` into a frozen `Settings`; everything after it works on that value.
"""
