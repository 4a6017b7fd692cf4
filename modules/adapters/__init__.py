"""What is trained beside a finished network and added to it."""
