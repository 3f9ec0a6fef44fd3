"""The subcommands of `brigade`, one file each: a function `run(argv)` that returns the exit status."""
