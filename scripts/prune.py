"""Makes a trained Keras network smaller, to a target; the command keras-sbp prune, without installing it.

python scripts/prune.py MODEL.keras --data=DATA --target=3
python scripts/prune.py --help
"""

import sys

from keras_sbp.utils.tool import cli

if __name__ == "__main__":
    cli.main(["prune", *sys.argv[1:]])
