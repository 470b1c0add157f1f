"""What leaves for the phone: one kit a platform (android, web, ios), copied by `melanoma-edge embed`."""
