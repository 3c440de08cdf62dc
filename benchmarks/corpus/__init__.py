"""The corpus and its rows beside their peers, on real code of this machine. One module a step."""
