"""The kit: a VS Code launch configuration goes in, an artifact tree comes out.

Each module says what it is for; it imports only from below.
"""
