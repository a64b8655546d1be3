"""What is measured before and after, with intervals."""
