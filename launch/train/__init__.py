"""Training: a dense BERT in, the checkpoint of a variant out.

Started as ``launch/train/train_qa.py``, by a Python with torch, transformers (4.9 to 5) and accelerate, alone
or by ``accelerate launch``, whose processes inherit no descriptor: :data:`launch.core.child.STATUS_FD` must
then not be set.  torch is imported in functions only, but for the modules that these import.
"""
