"""Data for the main jobs: reading text, vocabularies, batches for truncated backpropagation."""
