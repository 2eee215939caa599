"""Engines: a model loaded on a device and ready to run batches. No server, no wire, no event loop in here."""
