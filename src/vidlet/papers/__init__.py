"""One module a seed paper: its recipes, its tables, what we get beside what it printed."""
