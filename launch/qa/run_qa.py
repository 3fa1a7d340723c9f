"""Upstream's run_qa.py on the kit's program."""

from launch.qa.program import start_program

if __name__ == "__main__":
    start_program("run_qa.py")
