"""What every process needs around its work: start and stop, logs, clock, health pages, supervisor of `brigade up`."""
