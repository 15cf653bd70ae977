"""One module a view; each has `render()`. `app.shell` says how to write one."""
