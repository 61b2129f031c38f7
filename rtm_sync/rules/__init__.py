"""The rules that hubs, transports and tests share. Pure: time is an argument.

The rules are public, so that plugins can use them. They import the protocol, and no other part of
the package except the values.
"""
