"""Open-loop load over HTTP against a live system, real or emulated: requests are offered when they are due, come what may."""
