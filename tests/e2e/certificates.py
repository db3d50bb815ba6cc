# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests, by openssl(1)."""

import pathlib
import subprocess


class Authority:
    """One that makes certificates, in a folder of its own: `ca` is its own certificate."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.ca = self.folder / "ca.crt"
        self._key = self.folder / "ca.key"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-subj", "/CN=authority", "-days", "2", "-keyout", self._key, "-out", self.ca)

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)

    def certificate(self, name, names="DNS:oap.test,IP:127.0.0.1", expired=False):
        """Return: the files of a certificate and of its key."""
        certificate, key, request, more = (self.folder / f"{name}.{end}" for end in ("crt", "key", "csr", "ext"))
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        more.write_text(f"subjectAltName={names}\n")
        # One that ends before it begins has expired for everybody.
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial",
                      "-extfile", more, "-days", "-1" if expired else "1", "-out", certificate)
        return certificate, key
