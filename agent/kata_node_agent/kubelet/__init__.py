"""The two conversations with kubelet: we serve the device plugin API and register; we ask its pod resources API."""
