"""Every decision of the system as a pure function: a frozen view in, a frozen decision with its reason out. No clock, no I/O."""
