"""One stream to subscribers that come and go, for any trio program."""
