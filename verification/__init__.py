"""Evidence that runs beside the tests: models that are checked exhaustively."""
