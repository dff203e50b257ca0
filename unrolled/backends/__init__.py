"""The backends: each gives a meaning to the operations of a program."""
