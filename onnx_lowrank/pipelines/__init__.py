"""What users call, read top to bottom: compress, search within a budget, cascade, sweep."""
