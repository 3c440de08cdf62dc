"""The interfaces that clients speak, one file each: their words to requests, and texts to their words."""
