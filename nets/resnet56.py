"""ResNet-56 for CIFAR-10, as nets/resnet.py builds it: 125,747,840 MACs."""

import functools

from keras_sbp.nets import resnet

resnet56 = functools.partial(resnet.resnet, 9)
units = functools.partial(resnet.units, blocks=9)
