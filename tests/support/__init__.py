"""What several tests need: a private Redis server, a proxy that loses replies, waiting for conditions, checks on keys."""
