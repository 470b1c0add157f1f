"""melanoma-edge: from a folder of skin-lesion photographs to a verified, phone-ready bundle.

Not a medical device. The library behind each command is one function:

========================  ====================================================
``melanoma-edge audit``      :func:`melanoma_edge.data.audit.audit`
``melanoma-edge train``      :func:`melanoma_edge.model.train.train`
``melanoma-edge evaluate``   :func:`melanoma_edge.proof.evaluate.evaluate`
``melanoma-edge export``     :func:`melanoma_edge.proof.export.export`
``melanoma-edge verify``     :func:`melanoma_edge.proof.verify.verify`
``melanoma-edge bench``      :func:`melanoma_edge.proof.latency.bench`
``melanoma-edge predict``    :func:`melanoma_edge.proof.predict.predict`
``melanoma-edge report``     :func:`melanoma_edge.proof.report.report`
``melanoma-edge samples``    :func:`melanoma_edge.data.samples.write_samples`
========================  ====================================================

Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"

NOTICE = "Not a medical device. For research and development only; never a diagnosis."
"""The line that stands wherever a result reaches a person."""
