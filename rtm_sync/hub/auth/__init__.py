"""Who may log in: tokens, the keys that verify them, and the policy of an app."""
