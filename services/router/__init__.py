"""The router: the HTTP surface, and ownership of the requests it accepted. Imports no torch and no transformers."""
