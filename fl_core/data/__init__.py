"""From traffic and files to feature rows."""
