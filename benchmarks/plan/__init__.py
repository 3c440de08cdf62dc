"""The planner against published runs, against the paper, and against this machine."""
