"""What the user wrote: frozen values, how they are laid out in stages and links, and how they are shown."""
