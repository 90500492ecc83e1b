"""The search for the best model within a budget of bytes, milliseconds and memory."""
