"""The language of equations: from text to checked equations with sizes. Imports nothing of ours."""
