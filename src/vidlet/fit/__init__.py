"""The budget search over jobs."""
