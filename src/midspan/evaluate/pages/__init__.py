"""What the report shows, a file for each part of it."""
