"""The reference bundle, which goes with the wheel: `melanoma-edge predict reference lesion.jpg` uses it at once (:mod:`melanoma_edge.convert.reference`)."""
