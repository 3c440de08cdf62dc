"""What serving adds to the engine, how soon a server answers after its start, and how many it answers."""
