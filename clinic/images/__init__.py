"""Photographs: proof that an upload is a whole, plain picture, and its freedom from metadata."""
