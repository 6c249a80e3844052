"""What is done when an agent has ended of which nothing is to stay: a process that waits for that, and a mark in the state."""
