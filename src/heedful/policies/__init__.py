"""What is improved: language models here and behind a server."""
