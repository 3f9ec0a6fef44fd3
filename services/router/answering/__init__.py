"""From a validated ask to bytes for one client: branches, the client's buffer, whole answers and streams."""
