"""Tasks with scripted behaviours, from packages of others: data for `heedful act` that can be made anywhere."""
