"""Models: where they lie, how they are loaded, what state they are in, and what serves their requests."""
