"""The outputs of a prediction: one module for each kind, all with the protocol ``Output``.

An output is a frozen value of its options. It gets an ``Inferred`` (the final labels, the logits, what the model can do) and a
folder, never the predictor, and returns the files that it wrote. ``asked.OUTPUTS`` lists them all. Nothing is imported here, so
that verbs without a network, such as ``evaluate``, do not wait for torch.
"""
