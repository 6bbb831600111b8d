"""Tasks: from dataset rows to model inputs."""
