"""Redis: keys, connections, codec and the scripts that fence every move of a request. Nothing else speaks to Redis."""
