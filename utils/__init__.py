if __name__ != "keras_sbp.utils":  # a second copy of the modules, and of the classes that Keras knows by name
    raise ImportError(f"{__name__} is a part of keras_sbp: write keras_sbp.{__name__}")
