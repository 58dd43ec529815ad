"""What the tests of published attacks are given: servers with either executor."""

from tests.each_executor import executor, serve

__all__ = ["executor", "serve"]
