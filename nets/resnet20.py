"""ResNet-20 for CIFAR-10, as nets/resnet.py builds it: 40,813,184 MACs."""

import functools

from keras_sbp.nets import resnet

resnet20 = functools.partial(resnet.resnet, 3)
units = functools.partial(resnet.units, blocks=3)
