"""The search: space, suggestions, verdicts, the coordinator and its trials, memory, what a crash left."""
