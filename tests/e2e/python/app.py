# SPDX-License-Identifier: Apache-2.0
"""A Flask application for servers that fork."""

import os
import time

from flask import Flask

app = Flask(__name__)


@app.route("/slow")
def slow():
    time.sleep(0.2)
    return str(os.getpid())
