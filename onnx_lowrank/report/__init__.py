"""Reports: what the API returns, as tables for people."""
