"""The command `funcpipe`: plans described, compared and reviewed, without running them."""
