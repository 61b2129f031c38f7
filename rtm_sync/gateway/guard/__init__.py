"""What keeps a gateway from harm: limits for connections, origins and guesses."""
