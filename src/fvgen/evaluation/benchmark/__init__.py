"""How fast the parts are: seconds and memory as measured, work as counted, the time that it needs at least."""
