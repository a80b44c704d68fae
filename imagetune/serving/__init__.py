"""A finished run as a server: HTTP, admission, the processes that hold the model, and what is counted about them."""
