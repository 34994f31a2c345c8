"""Planning: which layer is replaced by what, what that costs, and the fits it asks for."""
