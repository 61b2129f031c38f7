"""`python -m rtm_sync` is `rtm-sync`."""

from .cli import main

main()
