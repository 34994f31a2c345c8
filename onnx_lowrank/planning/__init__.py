"""Planning: which layer is replaced by what, what that costs, and within which budget."""
