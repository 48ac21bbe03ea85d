"""Calls to language models, behind an OpenAI-compatible server or in this process: messages in; text, usage, finish reason out.

Every HTTP call is a row of a ledger on disk before its answer is used. The ledger is also the cache: what was answered once is
never asked, nor paid, again, even after ``kill -9``.
"""
