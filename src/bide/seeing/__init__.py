"""What a server does, for people and programs that look at it from outside."""
