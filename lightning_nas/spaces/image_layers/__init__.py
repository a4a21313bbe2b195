"""Image networks whose layers are chosen one by one."""
