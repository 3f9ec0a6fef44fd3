"""Measures an engine and its host through the engine's contract, and fits a profile (`brigade profile`)."""
