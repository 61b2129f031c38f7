"""The rules that a hub, a transport and a test share. Pure: time comes as an argument.

Public, so that plugins need no copies. They import the values and the protocol, and nothing
else of ours.
"""
