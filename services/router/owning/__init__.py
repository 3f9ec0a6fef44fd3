"""Ownership of requests: from acceptance to the last token, over any number of attempts. No HTTP here."""
