"""Builds the bundled profiles from the files in profiles/source. Run `python -m profiles.importers` in the repository root."""
