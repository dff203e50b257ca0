"""The types of networks: one to one, one to many, many to one, many to many of both lengths."""
