"""One process that serves: connections, applications, their time and their end."""
