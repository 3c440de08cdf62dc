"""What a keystroke costs, and how many it saves."""
