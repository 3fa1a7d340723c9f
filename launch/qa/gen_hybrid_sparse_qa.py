"""Upstream's gen_hybrid_sparse_qa.py on the kit's program."""

from launch.qa.program import start

if __name__ == "__main__":
    start("gen_hybrid_sparse_qa.py")
