"""A local web page: one person says which of two answers is better, and sees at once what the reward makes of it."""
