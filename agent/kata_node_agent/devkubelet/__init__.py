"""A small kubelet for newcomers and tests: the device manager of the real one, and nothing else of it.

It behaves at its sockets as the real one was seen to behave, errors included: see `kubelet.py` for the face
(`DevKubelet`), and its docstring for what is left out. It does not look at the host, starts no container and
knows no scheduler: a pod given to it is a pod that the scheduler has already placed here.
"""
