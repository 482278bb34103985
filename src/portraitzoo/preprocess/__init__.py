"""Photos, videos and synthetic heads turned into each family's inputs."""
