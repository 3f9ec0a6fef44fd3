"""Decisions as pure functions: a frozen view of the world in, a frozen decision with its reason out."""
