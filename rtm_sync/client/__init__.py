"""What applications call: the client, its channels, invitations and sender."""
