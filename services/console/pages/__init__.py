"""What people see: server-rendered pages that work without JavaScript. `visit` says who looks, `rendering` answers."""
