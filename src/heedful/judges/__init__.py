"""What gives feedback: rules, functions and reward models."""
